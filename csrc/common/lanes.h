// Vectors of the instruction set at hand. Included at the top of a loops file, inside
// namespace lganet::LGANET_ISA and once for each instruction set: no guard, no namespace.
constexpr int64_t kVectorBytes = LGANET_VECTOR_BYTES;

template <typename T>
constexpr int64_t kLanes = kVectorBytes / sizeof(T);

template <typename T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
};
template <typename T>
using Vec = typename VecOf<T>::type;

template <typename T>
LGANET_HD Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <typename T>
LGANET_HD void store(T* to, const Vec<T>& v) {
  __builtin_memcpy(to, &v, sizeof v);
}
