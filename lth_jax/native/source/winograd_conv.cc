// Convolutions by dense 3×3 kernels, by Winograd's minimal filtering. Strides are one.
#include "winograd_conv.h"

#include "dense_conv_calls.h"

using Pool = lth::ffi::ThreadPool;

LTH_DENSE_CONV(WinogradConvForward, lth::ForwardCall<lth::winograd_conv::Forward<Pool>>);
LTH_DENSE_CONV(WinogradConvInputGradient,
               lth::InputGradientCall<lth::winograd_conv::InputGradient<Pool>>);
LTH_DENSE_CONV(WinogradConvKernelGradient,
               lth::KernelGradientCall<lth::winograd_conv::KernelGradient<Pool>>);
