// parallel(task): runs task(thread) on Config::kThreads threads, the caller being thread 0, and returns when all are done.
#pragma once

#include <linux/futex.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "evo_config.hpp"

namespace evo {

using Task = void (*)(int thread);
constexpr int kHelpers = Config::kThreads - 1;  // threads beside the caller

class Pool {
 public:
  void parallel(Task task) {
    task_ = task;
    if constexpr (Config::kWorkers == Workers::kSpawn) {
      for (int i = 0; i < kHelpers; ++i) spawn(i, once);
      task(0);
      for (int i = 0; i < kHelpers; ++i) pthread_join(threads_[i], nullptr);
    } else {
      if (!started_) start();
      __atomic_store_n(&running_, kHelpers, __ATOMIC_RELAXED);
      __atomic_add_fetch(&round_, 1, __ATOMIC_RELEASE);
      wake(&round_);
      task(0);
      for (int left; (left = __atomic_load_n(&running_, __ATOMIC_ACQUIRE)) != 0;) await_change(&running_, left);
    }
  }

  // Runs when the library is unloaded: no thread may be left in code that goes away.
  ~Pool() {
    if (!started_) return;
    __atomic_store_n(&stop_, true, __ATOMIC_RELAXED);
    __atomic_add_fetch(&round_, 1, __ATOMIC_RELEASE);
    wake(&round_);
    for (int i = 0; i < kHelpers; ++i) pthread_join(threads_[i], nullptr);
  }

 private:
  struct Seat {
    Pool* pool;
    int thread;
  };

  void start() {
    started_ = true;
    for (int i = 0; i < kHelpers; ++i) spawn(i, serve);
  }

  void spawn(int i, void* (*body)(void*)) {
    seats_[i] = {this, i + 1};
    if (pthread_create(&threads_[i], nullptr, body, &seats_[i]) != 0) abort();
  }

  static void* once(void* argument) {
    const Seat* seat = static_cast<Seat*>(argument);
    seat->pool->task_(seat->thread);
    return nullptr;
  }

  static void* serve(void* argument) {
    const Seat* seat = static_cast<Seat*>(argument);
    Pool& pool = *seat->pool;
    for (int seen = 0;; ++seen) {
      while (__atomic_load_n(&pool.round_, __ATOMIC_ACQUIRE) == seen) await_change(&pool.round_, seen);
      if (__atomic_load_n(&pool.stop_, __ATOMIC_RELAXED)) return nullptr;
      pool.task_(seat->thread);
      if (__atomic_sub_fetch(&pool.running_, 1, __ATOMIC_RELEASE) == 0) wake(&pool.running_);
    }
  }

  // Returns when *word may differ from `seen`: spins for some tens of microseconds if the knob says so, then sleeps.
  static void await_change(int* word, int seen) {
    constexpr int kSpins = Config::kWorkers == Workers::kSpin ? 2000 : 0;
    for (int i = 0; i < kSpins; ++i) {
      if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != seen) return;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
  }

  static void wake(int* word) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, kHelpers + 1, nullptr, nullptr, 0); }

  Task task_ = nullptr;
  pthread_t threads_[Config::kThreads] = {};
  Seat seats_[Config::kThreads] = {};
  alignas(64) int round_ = 0;
  alignas(64) int running_ = 0;
  bool started_ = false;
  bool stop_ = false;
};

}  // namespace evo
