// What the sections of the driver share: a thread pool as XLA's looks to native code, random
// operands that end where their memory ends, and the comparison with a naive loop.
#pragma once

#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace check {

class Pool {
 public:
  explicit Pool(int threads) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      over_ = true;
    }
    some_.notify_all();
    for (auto& thread : threads_) thread.join();
  }
  int64_t num_threads() const { return static_cast<int64_t>(threads_.size()); }
  void Schedule(std::function<void()> task) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    some_.notify_one();
  }

 private:
  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      some_.wait(lock, [this] { return over_ || !tasks_.empty(); });
      if (tasks_.empty()) return;
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
  }
  std::mutex mutex_;
  std::condition_variable some_;
  std::deque<std::function<void()>> tasks_;
  std::vector<std::thread> threads_;
  bool over_ = false;
};

// Calls `body(pool)` on a new thread and with new ones, so that the room which threads keep for
// their next task is no larger than this one needs: AddressSanitizer sees one step beyond it.
template <class Body>
void WithThreads(Body body) {
  std::thread([&] {
    Pool pool(4);
    body(pool);
  }).join();
}

inline std::mt19937& Random() {
  static std::mt19937 random(0);
  return random;
}

// An array of exactly `size` entries on the heap: AddressSanitizer sees one step beyond it.
template <class T>
struct Array {
  explicit Array(size_t size) : size(size), data(new T[size]()) {}
  T& operator[](size_t i) const { return data[i]; }
  T* get() const { return data.get(); }
  size_t size;
  std::unique_ptr<T[]> data;
};

inline Array<float> Normal(size_t size) {
  std::normal_distribution<float> normal;
  Array<float> array(size);
  for (size_t i = 0; i < size; ++i) array[i] = normal(Random());
  return array;
}

// Results begin as something that nothing may leave as it is.
inline Array<float> Unwritten(size_t size) {
  Array<float> array(size);
  for (size_t i = 0; i < size; ++i) array[i] = NAN;
  return array;
}

inline int failures = 0;

inline void Agree(const std::string& what, const Array<float>& mine,
                  const std::vector<double>& expected) {
  double scale = 1e-30, worst = 0;
  for (double value : expected) scale = std::max(scale, std::abs(value));
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(mine[i] - expected[i]) / scale;
    if (!(difference <= worst)) worst = difference;
  }
  if (mine.size == expected.size() && worst <= 1e-5) return;
  std::printf("%s: differs by %g of the largest value\n", what.c_str(), worst);
  ++failures;
}

}  // namespace check

void CheckChain();
void CheckDenseConv();
void CheckWinogradConv();
void CheckDenseProduct();
void CheckLoop();
void CheckSparseProduct();
void CheckSparseConv();
