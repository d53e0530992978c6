// Reads and writes of vectors whose numbers are strided or of a narrower type.
// Included in the loops' namespace once per instruction set: no include guard.

// At most 32 bytes: the reads of eight corners per voxel gain nothing from 64-byte registers.
constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES < 32 ? 16 : 32;
#include "common/lanes.inl"

// As many integers as there are lanes of A.
template <typename A, typename I>
using Indices = typename VectorOf<I, kLanes<A>>::type;

// from[0], from[stride], ...: assembled in registers, since a wide load directly after narrow
// stores stalls.
template <typename A, typename T>
LGANET_HD Vec<A> load_spread(const T* from, int64_t stride) {
  if constexpr (kLanes<A> == 8)
    return Vec<A>{A(from[0]),          A(from[stride]),     A(from[2 * stride]),
                  A(from[3 * stride]), A(from[4 * stride]), A(from[5 * stride]),
                  A(from[6 * stride]), A(from[7 * stride])};
  else if constexpr (kLanes<A> == 4)
    return Vec<A>{A(from[0]), A(from[stride]), A(from[2 * stride]), A(from[3 * stride])};
  else
    return Vec<A>{A(from[0]), A(from[stride])};
}

// Numbers narrower than A, all lanes at once.
template <typename A, typename T>
LGANET_HD Vec<A> widened(const T* from) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const auto bits = load_vector<typename VectorOf<uint16_t, kLanes<A>>::type>(from);
    return Vec<A>(__builtin_convertvector(bits, Indices<A, uint32_t>) << 16);
  } else {
#if LGANET_VECTOR_BYTES >= 32
    return Vec<A>(_mm256_cvtph_ps(load_vector<__m128i>(from)));
#else
    Vec<A> value = {};
    for (int l = 0; l < kLanes<A>; ++l) value[l] = static_cast<A>(from[l]);
    return value;
#endif
  }
}

template <typename A, typename T>
LGANET_HD void store_narrowed(T* to, Vec<A> value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    using U = Indices<A, uint32_t>;
    const U bits = U(value), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const U narrow = value == value ? rounded : U{} + 0x7fc0;
    store_vector(to, __builtin_convertvector(narrow, typename VectorOf<uint16_t, kLanes<A>>::type));
  } else {
#if LGANET_VECTOR_BYTES >= 32
    store_vector(to, _mm256_cvtps_ph(__m256(value), _MM_FROUND_TO_NEAREST_INT));
#else
    for (int l = 0; l < kLanes<A>; ++l) to[l] = static_cast<T>(value[l]);
#endif
  }
}

// The first `count` lanes from memory, the rest zero.
template <typename A, typename T>
LGANET_HD Vec<A> load_lanes(const T* from, int64_t stride, int count) {
  if (stride == 1 && count == kLanes<A>) {
    if constexpr (sizeof(A) == sizeof(T))
      return load_vector<Vec<A>>(from);
    else
      return widened<A>(from);
  }
  if (count == kLanes<A>) return load_spread<A>(from, stride);
  Vec<A> value = {};
  for (int l = 0; l < count; ++l) value[l] = static_cast<A>(from[l * stride]);
  return value;
}

template <typename A, typename T>
LGANET_HD void store_lanes(T* to, int64_t stride, int count, Vec<A> value) {
  if (stride == 1 && count == kLanes<A>) {
    if constexpr (sizeof(A) == sizeof(T))
      return store_vector(to, value);
    else
      return store_narrowed<A>(to, value);
  }
  for (int l = 0; l < count; ++l) to[l * stride] = static_cast<T>(value[l]);
}

// 0, 1, 2, ...
template <typename A>
LGANET_HD Vec<A> counting() {
  Vec<A> value = {};
  for (int l = 0; l < kLanes<A>; ++l) value[l] = A(l);
  return value;
}

// from[offset[l] + 0] and from[offset[l] + 1] of every lane, by one load each.
template <typename A, typename I>
LGANET_HD void load_pairs(const A* from, const I* o, Vec<A>& first, Vec<A>& second) {
  using V = Vec<A>;
  if constexpr (sizeof(A) == 4) {
    using P = typename VectorOf<double, kVectorBytes / 8>::type;
    double pair[kLanes<A>];
    for (int l = 0; l < kLanes<A>; ++l) __builtin_memcpy(&pair[l], from + o[l], 8);
#if LGANET_VECTOR_BYTES >= 32
    const V p = V(P{pair[0], pair[1], pair[4], pair[5]}),
            q = V(P{pair[2], pair[3], pair[6], pair[7]});
    first = __builtin_shufflevector(p, q, 0, 2, 8, 10, 4, 6, 12, 14);
    second = __builtin_shufflevector(p, q, 1, 3, 9, 11, 5, 7, 13, 15);
#else
    const V p = V(P{pair[0], pair[1]}), q = V(P{pair[2], pair[3]});
    first = __builtin_shufflevector(p, q, 0, 2, 4, 6);
    second = __builtin_shufflevector(p, q, 1, 3, 5, 7);
#endif
  } else {
#if LGANET_VECTOR_BYTES >= 32
    const V p = V{from[o[0]], from[o[0] + 1], from[o[2]], from[o[2] + 1]};
    const V q = V{from[o[1]], from[o[1] + 1], from[o[3]], from[o[3] + 1]};
    first = __builtin_shufflevector(p, q, 0, 4, 2, 6);
    second = __builtin_shufflevector(p, q, 1, 5, 3, 7);
#else
    const V p = V{from[o[0]], from[o[0] + 1]}, q = V{from[o[1]], from[o[1] + 1]};
    first = __builtin_shufflevector(p, q, 0, 2);
    second = __builtin_shufflevector(p, q, 1, 3);
#endif
  }
}

// from[offset[l]] of every lane.
template <typename A, typename T, typename I>
LGANET_HD Vec<A> load_each(const T* from, const I* o) {
  if constexpr (kLanes<A> == 8)
    return Vec<A>{A(from[o[0]]), A(from[o[1]]), A(from[o[2]]), A(from[o[3]]),
                  A(from[o[4]]), A(from[o[5]]), A(from[o[6]]), A(from[o[7]])};
  else if constexpr (kLanes<A> == 4)
    return Vec<A>{A(from[o[0]]), A(from[o[1]]), A(from[o[2]]), A(from[o[3]])};
  else
    return Vec<A>{A(from[o[0]]), A(from[o[1]])};
}
