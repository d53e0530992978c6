// Local normalised cross-correlation: the arithmetic of one voxel, on numbers or vectors V of them.
// Included inside a namespace, once for each instruction set: no guard.
//
// A box of voxels is represented by the means and (co)variances of the two images in it, not by raw
// sums: so a constant region has a variance of exactly zero at any intensity, also in float32.

template <typename V>
struct Moments {
  V a, b, aa, bb, ab;
};

// The two images at a voxel.
template <typename V>
struct Sample {
  V a, b;
};

// Joins boxes of equal size, from the deviations of their means from those of one of them, the
// pivot. The variance is a difference of two sums; since the pivot is one of the boxes, it is never
// small compared with them, and there is no cancellation.
template <typename V>
struct Join {
  Moments<V> pivot;
  V a, b, aa, bb, ab;

  Join() = default;

  // From a single voxel.
  LGANET_HD Join(const V& x, const V& y) : pivot{x, y, V{}, V{}, V{}}, a{}, b{}, aa{}, bb{}, ab{} {}

  LGANET_HD explicit Join(const Sample<V>& x) : Join(x.a, x.b) {}

  LGANET_HD explicit Join(const Moments<V>& m) : pivot(m), a{}, b{}, aa(m.aa), bb(m.bb), ab(m.ab) {}

  LGANET_HD void add(const V& x, const V& y) {
    const V da = x - pivot.a, db = y - pivot.b;
    a += da;
    b += db;
    aa += da * da;
    bb += db * db;
    ab += da * db;
  }

  LGANET_HD void add(const Sample<V>& x) { add(x.a, x.b); }

  LGANET_HD void add(const Moments<V>& m) {
    const V da = m.a - pivot.a, db = m.b - pivot.b;
    a += da;
    b += db;
    aa += m.aa + da * da;
    bb += m.bb + db * db;
    ab += m.ab + da * db;
  }

  // Adds boxes that were joined separately around the same pivot.
  LGANET_HD void add(const Join& other) {
    a += other.a;
    b += other.b;
    aa += other.aa;
    bb += other.bb;
    ab += other.ab;
  }

  // An empty join around the same pivot.
  LGANET_HD Join none() const { return Join(pivot.a, pivot.b); }

  // The joined box; `inverse` is one over the number of boxes.
  template <typename T>
  LGANET_HD Moments<V> whole(T inverse) const {
    const V ma = a * inverse, mb = b * inverse;
    return {pivot.a + ma, pivot.b + mb, (aa - a * ma) * inverse, (bb - b * mb) * inverse,
            (ab - a * mb) * inverse};
  }
};

// c^2 / (var_a var_b + 1e-5) and what its derivatives need.
// epsilon: 1e-5 over the square of the number of voxels, since the definition has sums and the
// moments are means.
template <typename V>
struct Agreement {
  V product;  // var_a var_b + 1e-5
  V slope;    // c / product

  template <typename T>
  LGANET_HD Agreement(const Moments<V>& m, T epsilon) {
    product = m.aa * m.bb + epsilon;
    slope = m.ab / product;
  }

  // c slope; NaN, not 0, where the product overflows.
  LGANET_HD V value(const V& c) const { return c * slope + 0 * product; }

  // The same without c, which saves a register; the rounding differs.
  LGANET_HD V value() const { return slope * product * slope; }
};

// The derivative of sum_p weight(p) value(p) by image y at voxel q, x being the other image, is
//   x(q) B[across] + y(q) B[along] + B[rest]      (B: sum over the box around q)
// with, at each p:  across = weight slope 2 / n,  along = -across slope var_x,
//   rest = -(across mean_x + along mean_y);  `across` is given.
template <typename V>
LGANET_HD void derivative(const V& across, const V& slope, const V& mean_x, const V& var_x,
                          const V& mean_y, V& along, V& rest) {
  along = -(across * slope) * var_x;
  rest = -(across * mean_x + along * mean_y);
}
