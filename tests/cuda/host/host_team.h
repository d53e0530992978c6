// The threads of one block on the host: each has a stack of its own and all take turns on one
// thread of the host, so a barrier costs a switch of stacks. A warp runs on until only others can
// let it go on, so that it gets as far ahead of them as the barriers let it. Threads run from the
// first to the last in one block and from the last to the first in the next. So a barrier that is
// missing shows, whichever of two threads it should have held back.
#pragma once

#include <sys/mman.h>
#include <ucontext.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

namespace lganet::host {

[[noreturn]] inline void fail(const char* why) {
  std::fprintf(stderr, "host_cuda: %s\n", why);
  std::abort();
}

// What one thread has begun to copy with cp.async.
struct Copies {
  struct Copy {
    void* to;
    const void* from;
    int size, bytes;  // of the place, and what is read; the rest is zeros
  };
  std::vector<Copy> begun;
  std::vector<std::vector<Copy>> groups;

  void end() {
    groups.push_back(std::move(begun));
    begun.clear();
  }
  void wait(size_t but_last) {
    for (; groups.size() > but_last; groups.erase(groups.begin()))
      for (const Copy& copy : groups.front()) {
        std::memset(copy.to, 0, copy.size);
        if (copy.bytes) std::memcpy(copy.to, copy.from, copy.bytes);
      }
  }
};

// A stack and what is kept of a thread while others run.
struct Thread {
  static constexpr size_t kStack = 256 * 1024;
  Thread()
      : stack(mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (stack == MAP_FAILED) fail("no memory for a stack");
  }
  ~Thread() { munmap(stack, kStack); }
  Thread(const Thread&) = delete;

  void* stack;
  ucontext_t context;
  void* sanitizer = nullptr;  // its own note of the stack
  bool done = false;
  Copies copies;
};

class Team {
 public:
  // Runs body(thread) for all of them.
  Team(int count, const std::function<void(int)>& body) : body_(body) {
    for (int t = 0; t < count; ++t) threads_.push_back(std::make_unique<Thread>());
  }

  void run() {
    for (auto& thread : threads_) {
      getcontext(&thread->context);
      thread->context.uc_stack.ss_sp = thread->stack;
      thread->context.uc_stack.ss_size = Thread::kStack;
      thread->context.uc_link = nullptr;
      makecontext(&thread->context, &Team::enter, 0);
    }
    running = this;
    left_ = int(threads_.size());
    switch_from(home_, current_ = 0);
    running = nullptr;
  }

  int current() const { return current_; }
  Copies& copies() { return threads_[current_]->copies; }
  void progress() { idle_ = stuck_ = 0; }
  void turn_around() { backwards_ = !backwards_; }

  // Lets the others run.
  void yield() {
    ++stuck_;
    if (++idle_ > 4 * threads_.size() + 64) fail("a barrier that some threads never reach");
    const int mine = current_;
    const int other = next();
    if (other == mine) return;
    const dim3 thread = threadIdx;
    switch_from(*threads_[mine], current_ = other);
    threadIdx = thread;
  }

  static inline Team* running = nullptr;

 private:
  // The next of this warp, or, once none of it has got anywhere for a round, of another one.
  int next() {
    const int count = int(threads_.size()), warps = (count + 31) / 32;
    for (int w = stuck_ < 32 ? 0 : 1; w <= warps; ++w) {
      const int first = (current_ / 32 + (backwards_ ? warps - w % warps : w)) % warps * 32;
      const int lanes = std::min(32, count - first);
      for (int k = 1; k <= lanes; ++k) {
        const int from = w % warps == 0 ? current_ - first : backwards_ ? 0 : lanes - 1;
        const int t = first + (from + (backwards_ ? lanes - k : k)) % lanes;
        if (w > 0) stuck_ = 0;
        if (!threads_[t]->done) return t;
      }
    }
    return current_;
  }

  void switch_from(Thread& from, int to) {
    Thread& target = *threads_[to];
    leave(from, target.stack, Thread::kStack);
    swapcontext(&from.context, &target.context);
    arrive(from);
  }

  static void leave([[maybe_unused]] Thread& from, [[maybe_unused]] const void* stack,
                    [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.sanitizer, stack, size);
#endif
  }

  static void arrive([[maybe_unused]] Thread& at) {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(at.sanitizer, nullptr, nullptr);
#endif
  }

  static void enter() {
    Team& team = *running;
    const int mine = team.current_;
#if defined(__SANITIZE_ADDRESS__)
    const void* bottom = nullptr;
    size_t size = 0;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (!team.home_bottom_) team.home_bottom_ = bottom, team.home_size_ = size;
#endif
    team.body_(mine);
    Thread& me = *team.threads_[mine];
    me.done = true;
    team.progress();
    if (--team.left_ == 0) {
      leave(me, team.home_bottom_, team.home_size_);
      setcontext(&team.home_.context);
    }
    team.switch_from(me, team.current_ = team.next());
    fail("a thread that had ended runs");
  }

  const std::function<void(int)>& body_;
  std::vector<std::unique_ptr<Thread>> threads_;
  Thread home_;
  const void* home_bottom_ = nullptr;
  size_t home_size_ = 0, idle_ = 0, stuck_ = 0;  // the last two: switches since a thread got on
  int current_ = 0, left_ = 0;
  bool backwards_ = false;
};

// Where `expected` threads of the team meet.
struct Barrier {
  explicit Barrier(int expected) : expected(expected) {}
  int expected, arrived = 0;
  unsigned phase = 0;

  // The last to arrive does `last` for all.
  template <typename F>
  void wait(F&& last) {
    Team::running->progress();
    if (++arrived == expected) {
      last();
      arrived = 0;
      ++phase;
      return;
    }
    for (const unsigned now = phase; now == phase;) Team::running->yield();
  }
  void wait() {
    wait([] {});
  }

  // A thread that ends is waited for no more.
  void drop() {
    Team::running->progress();
    if (--expected == arrived && arrived > 0) {
      arrived = 0;
      ++phase;
    }
  }
};

}  // namespace lganet::host
