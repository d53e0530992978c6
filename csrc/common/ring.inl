// Copies rows of maps to scratch and back. Included in a loops file after lanes.inl, inside
// namespace lganet::LGANET_ISA and once for each instruction set: no guard, no namespace.

// Whether the rows of a tensor have the layout of scratch, apart from the margins.
template <typename In>
bool stands_as(const View<In>& x, const RowLayout& row) {
  return row.channel == 1 && x.stride[1] == 1 && x.stride[4] == x.size[1] && x.size[1] == row.voxel;
}

// Copies row (h, w) of a tensor to padded scratch, voxel 0 to `to`; zeros outside the tensor.
template <typename In, typename T>
void read_row(T* to, const RowLayout& row, const View<const In>& x, int64_t b, int64_t h,
              int64_t w) {
  const int64_t channels = x.size[1], depth = x.size[4];
  if (h < 0 || h >= x.size[2] || w < 0 || w >= x.size[3]) {
    std::memset(to - row.origin, 0, sizeof(T) * row.length);
    return;
  }
  const In* from = x.at(b, 0) + h * x.stride[2] + w * x.stride[3];
  const int64_t by_channel = x.stride[1], by_voxel = x.stride[4];
  if (stands_as(x, row))
    for (int64_t i = 0; i < depth * channels; ++i) to[i] = static_cast<T>(from[i]);
  else if (row.channel == 1 && by_channel == 1)
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t c = 0; c < channels; ++c)
        to[d * row.voxel + c] = static_cast<T>(from[d * by_voxel + c]);
  else if (row.voxel == 1 && by_voxel == 1)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t d = 0; d < depth; ++d)
        to[c * row.channel + d] = static_cast<T>(from[c * by_channel + d]);
  else
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t c = 0; c < channels; ++c)
        to[d * row.voxel + c * row.channel] = static_cast<T>(from[d * by_voxel + c * by_channel]);
}

template <typename Out, typename T>
void write_row(const View<Out>& x, int64_t b, int64_t h, int64_t w, const T* from,
               const RowLayout& row) {
  const int64_t channels = x.size[1], depth = x.size[4];
  Out* to = x.at(b, 0) + h * x.stride[2] + w * x.stride[3];
  const int64_t by_channel = x.stride[1], by_voxel = x.stride[4];
  if (stands_as(x, row))
    for (int64_t i = 0; i < depth * channels; ++i) to[i] = static_cast<Out>(from[i]);
  else if (row.channel == 1 && by_channel == 1)
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t c = 0; c < channels; ++c)
        to[d * by_voxel + c] = static_cast<Out>(from[d * row.voxel + c]);
  else if (row.voxel == 1 && by_voxel == 1)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t d = 0; d < depth; ++d)
        to[c * by_channel + d] = static_cast<Out>(from[c * row.channel + d]);
  else
    for (int64_t d = 0; d < depth; ++d)
      for (int64_t c = 0; c < channels; ++c)
        to[d * by_voxel + c * by_channel] = static_cast<Out>(from[d * row.voxel + c * row.channel]);
}

// The last `side` rows of each of a run of planes and of the `radius` planes on either side.
template <typename T>
struct Ring {
  T* data;
  RowLayout row;
  int64_t side;

  T* at(int64_t plane, int64_t w) const {
    return data + (plane * side + (w + side) % side) * row.length + row.origin;
  }

  template <typename In>
  void enter(const View<const In>& x, int64_t b, int64_t h, int64_t count, int64_t w) const {
    for (int64_t i = 0; i < count; ++i) read_row(at(i, w), row, x, b, h + i, w);
  }
};
