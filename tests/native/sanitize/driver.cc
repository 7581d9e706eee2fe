// Calls every native function over the tests' shapes, for the sanitizers to watch: see ../sanitize.py.
// A new kind of native code is one more file of this folder, declared in check.h and called here.
#include "check.h"

int main() {
  CheckDenseConv();
  CheckWinogradConv();
  CheckSparseProduct();
  CheckDenseProduct();
  CheckSparseConv();
  CheckLoop();
  CheckChain();
  if (check::failures == 0) std::puts("all functions agree with naive loops");
  return check::failures != 0;
}
