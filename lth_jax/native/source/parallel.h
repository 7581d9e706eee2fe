// Tasks over a thread pool, such as XLA's own, the calling thread included.
#pragma once

#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace lth {

// Runs `task(0)` to `task(count - 1)`, in any order and on any thread, and returns when all are
// done. Which task does what never depends on the number of threads, so neither do any bits.
//
// The caller waits only for tasks that a thread has begun: a pool whose threads are all busy, or
// all waiting here themselves, cannot block it.
template <class Pool, class Task>
void ForEach(Pool& pool, int count, const Task& task) {
  struct State {
    std::atomic<int> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  int threads = static_cast<int>(pool.num_threads());
  if (threads > count) threads = count;
  if (threads <= 1) {
    for (int i = 0; i < count; ++i) task(i);
    return;
  }
  auto state = std::make_shared<State>();
  // A helper that starts late finds no task left, and `task`, which may be gone, is not touched.
  auto help = [state, count, &task] {
    for (int i; (i = state->next.fetch_add(1)) < count;) {
      task(i);
      if (state->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->finished.notify_all();
      }
    }
  };
  for (int thread = 1; thread < threads; ++thread) pool.Schedule(decltype(help)(help));
  help();
  // Spin for a moment before sleeping: tasks are of nearly the same length, so that the others are
  // nearly done, and to be woken takes longer.
  for (int spin = 0; spin < 2000 && state->done.load() < count; ++spin) {
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done.load() >= count; });
}

// A pool without threads, for work too small to be shared out.
struct SingleThread {
  int num_threads() const { return 1; }
  template <class Task>
  void Schedule(Task&& task) {
    task();
  }
};

// Multiply-adds below which waking a second thread costs more than it gains.
constexpr int64_t kWorthSharing = int64_t{1} << 21;

// Calls `body(pool)` with the given pool, or, for little work, with none.
template <class Pool, class Body>
void WithPool(Pool& pool, int64_t work, Body body) {
  SingleThread single_thread;
  if (work < kWorthSharing) {
    body(single_thread);
  } else {
    body(pool);
  }
}

// Returns room for `count` floats that a thread keeps for its next task, at unspecified values: to
// allocate it for each task would cost page faults. It begins where a line of the cache does. For
// the sanitizers (tests/native/sanitize.py) it is exactly as large as asked for, and holds no
// numbers.
template <int kSlot>
float* Scratch(size_t count) {
#if defined(LTH_EXACT_SCRATCH)
  thread_local std::vector<float> exact;
  if (exact.size() != count) std::vector<float>(count, std::nanf("")).swap(exact);
  return exact.data();
#else
  constexpr size_t kLine = 64;
  thread_local std::vector<float> storage;
  const size_t whole = count + kLine / sizeof(float);
  if (storage.size() < whole) storage.resize(whole);
  size_t bytes = storage.size() * sizeof(float);
  void* begin = storage.data();
  return static_cast<float*>(std::align(kLine, count * sizeof(float), begin, bytes));
#endif
}

}  // namespace lth
