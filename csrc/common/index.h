// Whether offsets in memory need 64 bits.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace lganet {

// Whether offsets below `reach` fit 32 bits. LGANET_FAST_INDEX=64: always no, to test the 64-bit
// code.
inline bool fits_int32(int64_t reach) {
  static const bool wide = [] {
    const char* asked = std::getenv("LGANET_FAST_INDEX");
    return asked && asked[0] == '6';
  }();
  return !wide && reach < INT32_MAX;
}

}  // namespace lganet
