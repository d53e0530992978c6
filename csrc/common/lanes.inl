// Vectors of the current instruction set. Included at the top of a loops file, inside
// namespace lganet::LGANET_ISA and once for each instruction set: no guard, no namespace.
// The including file defines their width, kVectorBytes.
template <typename T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

template <typename T, int64_t N>
struct VectorOf {
  typedef T type __attribute__((vector_size(N * sizeof(T))));
};

template <typename T>
using Vec = typename VectorOf<T, kLanes<T>>::type;

template <typename V>
LGANET_HD V load_vector(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <typename V>
LGANET_HD void store_vector(void* to, const V& value) {
  __builtin_memcpy(to, &value, sizeof value);
}

template <typename T>
LGANET_HD Vec<T> load(const T* from) {
  return load_vector<Vec<T>>(from);
}

template <typename T>
LGANET_HD void store(T* to, const Vec<T>& value) {
  store_vector(to, value);
}
