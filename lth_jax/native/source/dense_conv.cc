// Convolutions by dense kernels, by their definition.
#include "dense_conv.h"

#include "dense_conv_calls.h"

using Pool = lth::ffi::ThreadPool;

LTH_DENSE_CONV(DenseConvForward, lth::ForwardCall<lth::dense_conv::Forward<Pool>>);
LTH_DENSE_CONV(DenseConvInputGradient,
               lth::InputGradientCall<lth::dense_conv::InputGradient<Pool>>);
LTH_DENSE_CONV(DenseConvKernelGradient,
               lth::KernelGradientCall<lth::dense_conv::KernelGradient<Pool>>);
