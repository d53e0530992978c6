// A thread's working memory: zeroed, aligned to a cache line, of padded rows.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

namespace lganet {

constexpr int64_t kCacheLine = 64;

// Rows are padded to whole vectors of the widest instruction set.
constexpr int64_t round_up(int64_t n, int64_t step = 16) { return (n + step - 1) / step * step; }

template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : data_(static_cast<T*>(::operator new[](count * sizeof(T), std::align_val_t{kCacheLine}))) {
    std::memset(data_, 0, count * sizeof(T));
  }
  ~Scratch() { ::operator delete[](data_, std::align_val_t{kCacheLine}); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }

 private:
  T* data_;
};

}  // namespace lganet
