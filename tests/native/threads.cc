// How many threads XLA gives native code, for test_threads.py.
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

static ffi::Error Count(ffi::ThreadPool pool,
                        ffi::ResultBuffer<ffi::S32> threads) {
  threads->typed_data()[0] = static_cast<int32_t>(pool.num_threads());
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    Threads, Count,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Ret<ffi::Buffer<ffi::S32>>());
