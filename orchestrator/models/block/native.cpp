// The fused block's operations on a CPU: one pass over the maps each, tiles of normalised maps in cache alone.
//
// Matrices are rows of channels side by side, float or bfloat16; sums are taken in float within a tile and in double
// beyond. Rows are divided among threads by their number alone, and what threads find is added in their order, so the
// result is the same on every run with as many threads. Products are BLAS's sgemm, which the caller hands in.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using Sgemm = void (*)(const char*, const char*, const int*, const int*, const int*, const float*, const float*,
                       const int*, const float*, const int*, const float*, float*, const int*);

constexpr int64_t kTileRows = 256;
constexpr int64_t kPanel = 256;  // channels of a tile that is multiplied at once
constexpr int64_t kFloatRows = 32;  // that are summed in float before the sum goes to double

struct Bf16 {
  uint16_t bits;
};

inline float load(float value) { return value; }
inline float load(Bf16 value) {
  uint32_t bits = uint32_t(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, 4);
  return result;
}
inline void store(float* to, float value) { *to = value; }
inline void store(Bf16* to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  to->bits = uint16_t(value != value ? 0x7fc0u : rounded);
}

// Torch's ReLU: NaN stays NaN, so that a diverged network is noticed.
inline float relu(float value) { return value < 0.0f ? 0.0f : value; }

template <class T>
struct Matrix {
  T* data;
  int64_t pitch;
  T* row(int64_t number) const { return data + number * pitch; }
};

}  // namespace

extern "C" {

// Images in groups that follow each other; group g has rows [bounds[g], bounds[g + 1]).
struct Grid {
  const int64_t* bounds;
  const int64_t* num_values;
  int64_t num_groups;
  int64_t height;
  int64_t width;
  int32_t num_threads;
};

struct Norm {
  const float* mean;
  const float* var;
  int64_t pitch;
  const float* weight;
  const float* bias;
  double eps;
  int32_t of_batch;
};

struct Moments {  // null: not wanted
  float* mean;
  float* var;
  int64_t pitch;
};

struct Sums {  // a and b of a gradient, and what becomes the gradients of a norm's weight and bias
  float* a;
  float* b;
  int64_t pitch;
  float* grad_weight;
  float* grad_bias;
  int32_t add;
};
}

namespace {

struct Part {
  int64_t group, begin, end;
};

// The rows of one thread, cut where groups end.
std::vector<Part> parts_of(const Grid& grid, int thread, int num_threads) {
  const int64_t num_rows = grid.bounds[grid.num_groups];
  const int64_t begin = num_rows * thread / num_threads, end = num_rows * (thread + 1) / num_threads;
  std::vector<Part> parts;
  for (int64_t group = 0; group < grid.num_groups; ++group) {
    const int64_t low = std::max(begin, grid.bounds[group]), high = std::min(end, grid.bounds[group + 1]);
    if (low < high) parts.push_back({group, low, high});
  }
  return parts;
}

struct Affine {
  std::vector<float> scale, shift, mean, inverse_std;

  Affine(const Norm& norm, int64_t group, int64_t channels)
      : scale(channels), shift(channels), mean(channels), inverse_std(channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const double inverse = 1.0 / std::sqrt(double(norm.var[group * norm.pitch + c]) + norm.eps);
      mean[c] = norm.mean[group * norm.pitch + c];
      inverse_std[c] = float(inverse);
      scale[c] = float(inverse * norm.weight[c]);
      shift[c] = float(norm.bias[c] - double(mean[c]) * inverse * norm.weight[c]);
    }
  }
};

// Mean and squared deviations of what one thread saw of one group; shifted by the first row, so that nothing cancels.
struct Spread {
  int64_t count = 0;
  std::vector<float> shift, tile_sum, tile_squares;
  std::vector<double> sum, squares;

  explicit Spread(int64_t channels)
      : shift(channels), tile_sum(channels), tile_squares(channels), sum(channels), squares(channels) {}

  template <class T>
  void add(Matrix<T> tile, int64_t rows, int64_t channels) {
    for (int64_t row = 0; row < rows; row += kFloatRows)
      add_few(Matrix<T>{tile.row(row), tile.pitch}, std::min(kFloatRows, rows - row), channels);
  }

  template <class T>
  void add_few(Matrix<T> tile, int64_t rows, int64_t channels) {
    if (count == 0)
      for (int64_t c = 0; c < channels; ++c) shift[c] = load(tile.data[c]);
    std::fill(tile_sum.begin(), tile_sum.end(), 0.0f);
    std::fill(tile_squares.begin(), tile_squares.end(), 0.0f);
    float* __restrict sums = tile_sum.data();
    float* __restrict all_squares = tile_squares.data();
    const float* __restrict shifts = shift.data();
    for (int64_t r = 0; r < rows; ++r) {
      const T* __restrict values = tile.row(r);
      for (int64_t c = 0; c < channels; ++c) {
        const float centred = load(values[c]) - shifts[c];
        sums[c] += centred;
        all_squares[c] += centred * centred;
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      sum[c] += sums[c];
      squares[c] += all_squares[c];
    }
    count += rows;
  }
};

using Spreads = std::vector<std::vector<Spread>>;  // [thread][group]

Spreads make_spreads(const Grid& grid, int64_t channels) {
  return Spreads(grid.num_threads, std::vector<Spread>(grid.num_groups, Spread(channels)));
}

void join(const Spreads& spreads, const Moments& moments, const Grid& grid, int64_t channels) {
  for (int64_t group = 0; group < grid.num_groups; ++group) {
    if (grid.bounds[group] == grid.bounds[group + 1]) continue;
    for (int64_t c = 0; c < channels; ++c) {
      double count = 0, mean = 0, deviations = 0;
      for (const auto& of_thread : spreads) {
        const Spread& part = of_thread[group];
        if (part.count == 0) continue;
        const double n = double(part.count), part_mean = part.sum[c] / n;
        const double delta = part.shift[c] + part_mean - mean;
        deviations += part.squares[c] - part_mean * part.sum[c] + delta * delta * count * n / (count + n);
        mean += delta * n / (count + n);
        count += n;
      }
      moments.mean[group * moments.pitch + c] = float(mean);
      moments.var[group * moments.pitch + c] = float(std::max(deviations, 0.0) / count);
    }
  }
}

// Sums over rows of a gradient and of its product with the centred maps: [thread][group][2 * channels].
struct RowSums {
  int64_t channels;
  std::vector<std::vector<std::vector<double>>> sums;

  RowSums(const Grid& grid, int64_t channels)
      : channels(channels),
        sums(grid.num_threads,
             std::vector<std::vector<double>>(grid.num_groups, std::vector<double>(2 * channels))) {}

  void finish(const Norm& norm, const Sums& to, const Grid& grid) const {
    for (int64_t c = 0; c < channels; ++c) to.grad_weight[c] = to.grad_bias[c] = 0.0f;
    std::vector<double> grad_weight(channels), grad_bias(channels);
    for (int64_t group = 0; group < grid.num_groups; ++group) {
      for (int64_t c = 0; c < channels; ++c) {
        double first = 0, second = 0;
        for (const auto& of_thread : sums) {
          first += of_thread[group][c];
          second += of_thread[group][channels + c];
        }
        const double inverse = 1.0 / std::sqrt(double(norm.var[group * norm.pitch + c]) + norm.eps);
        grad_bias[c] += first;
        grad_weight[c] += second * inverse;
        float* a = to.a + group * to.pitch + c;
        float* b = to.b + group * to.pitch + c;
        if (!to.add) *a = *b = 0.0f;
        if (norm.of_batch && grid.num_values[group] > 0) {
          const double scale = norm.weight[c] * inverse / double(grid.num_values[group]);
          *a = float(*a + scale * first);
          *b = float(*b + scale * inverse * inverse * second);
        }
      }
    }
    for (int64_t c = 0; c < channels; ++c) {
      to.grad_weight[c] = float(grad_weight[c]);
      to.grad_bias[c] = float(grad_bias[c]);
    }
  }
};

template <class T, class U>
void activate_tile(Matrix<const T> maps, int64_t rows, int64_t channels, const float* __restrict scale,
                   const float* __restrict shift, Matrix<U> out) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* __restrict from = maps.row(r);
    U* __restrict to = out.row(r);
    for (int64_t c = 0; c < channels; ++c) store(to + c, relu(load(from[c]) * scale[c] + shift[c]));
  }
}

// Row-major: out[m, n] = beta * out + left[m, k] @ right, with right [k, n], or [n, k] if transposed.
void multiply(Sgemm sgemm, bool left_transposed, bool right_transposed, int64_t m, int64_t n, int64_t k,
              const float* left, int64_t left_pitch, const float* right, int64_t right_pitch, float beta, float* out,
              int64_t out_pitch) {
  const int rows = int(m), columns = int(n), inner = int(k);
  const int ld_left = int(left_pitch), ld_right = int(right_pitch), ld_out = int(out_pitch);
  const float alpha = 1.0f;
  sgemm(right_transposed ? "T" : "N", left_transposed ? "T" : "N", &columns, &rows, &inner, &alpha, right, &ld_right,
        left, &ld_left, &beta, out, &ld_out);
}

// Memory for tiles, on cache lines, so that sgemm does the same on every run.
struct Scratch {
  std::vector<float> memory;
  float* data;
  explicit Scratch(int64_t size) : memory(size + 16) {
    data = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t(63));
  }
};

template <class T>
void moments_of(const T* maps, int64_t pitch, int64_t channels, Moments moments, Grid grid) {
  Spreads spreads = make_spreads(grid, channels);
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread)
    for (const Part& part : parts_of(grid, thread, grid.num_threads))
      for (int64_t row = part.begin; row < part.end; row += kTileRows)
        spreads[thread][part.group].add(Matrix<const T>{maps + row * pitch, pitch},
                                        std::min(kTileRows, part.end - row), channels);
  join(spreads, moments, grid, channels);
}

// Moves what a convolution made into its columns of the maps, and takes its moments on the way.
template <class S, class T>
void place_rows(const S* from, int64_t channels, T* out, int64_t pitch, Moments moments, Grid grid) {
  Spreads spreads = make_spreads(grid, channels);
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread)
    for (const Part& part : parts_of(grid, thread, grid.num_threads))
      for (int64_t row = part.begin; row < part.end; row += kTileRows) {
        const int64_t rows = std::min(kTileRows, part.end - row);
        for (int64_t r = row; r < row + rows; ++r)
          for (int64_t c = 0; c < channels; ++c) store(out + r * pitch + c, load(from[r * channels + c]));
        if (moments.mean) spreads[thread][part.group].add(Matrix<T>{out + row * pitch, pitch}, rows, channels);
      }
  if (moments.mean) join(spreads, moments, grid, channels);
}

template <class T>
void pointwise_forward(const T* maps, int64_t pitch, int64_t channels, Norm norm, const float* weight, int64_t width,
                       T* out, int64_t out_pitch, Moments moments, Grid grid, Sgemm sgemm) {
  Spreads spreads = make_spreads(grid, width);
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread) {
    Scratch activated(kTileRows * kPanel), product(kTileRows * width);
    for (const Part& part : parts_of(grid, thread, grid.num_threads)) {
      const Affine affine(norm, part.group, channels);
      for (int64_t row = part.begin; row < part.end; row += kTileRows) {
        const int64_t rows = std::min(kTileRows, part.end - row);
        for (int64_t start = 0; start < channels; start += kPanel) {
          const int64_t panel = std::min(kPanel, channels - start);
          activate_tile(Matrix<const T>{maps + row * pitch + start, pitch}, rows, panel, affine.scale.data() + start,
                        affine.shift.data() + start, Matrix<float>{activated.data, panel});
          multiply(sgemm, false, true, rows, width, panel, activated.data, panel, weight + start, channels,
                   start ? 1.0f : 0.0f, product.data, width);
        }
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < width; ++c) store(out + (row + r) * out_pitch + c, product.data[r * width + c]);
        if (moments.mean) spreads[thread][part.group].add(Matrix<T>{out + row * out_pitch, out_pitch}, rows, width);
      }
    }
  }
  if (moments.mean) join(spreads, moments, grid, width);
}

template <class T, class U>
void activate_rows(const T* maps, int64_t pitch, int64_t channels, Norm norm, U* out, Grid grid) {
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread)
    for (const Part& part : parts_of(grid, thread, grid.num_threads)) {
      const Affine affine(norm, part.group, channels);
      activate_tile(Matrix<const T>{maps + part.begin * pitch, pitch}, part.end - part.begin, channels,
                    affine.scale.data(), affine.shift.data(), Matrix<U>{out + part.begin * channels, channels});
    }
}

// A thread's images of each group, for what works on whole images.
std::vector<Part> images_of(const Grid& grid, int thread, int num_threads) {
  std::vector<int64_t> bounds(grid.num_groups + 1);
  const int64_t pixels = std::max<int64_t>(1, grid.height * grid.width);
  for (int64_t group = 0; group <= grid.num_groups; ++group) bounds[group] = grid.bounds[group] / pixels;
  Grid images = grid;
  images.bounds = bounds.data();
  return parts_of(images, thread, num_threads);
}

template <class T>
void activate_and_pool(const T* maps, int64_t pitch, int64_t channels, Norm norm, T* out, Grid grid) {
  const int64_t height = grid.height / 2, width = grid.width / 2;
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread)
    for (const Part& part : images_of(grid, thread, grid.num_threads)) {
      const Affine affine(norm, part.group, channels);
      const float* __restrict scale = affine.scale.data();
      const float* __restrict shift = affine.shift.data();
      for (int64_t image = part.begin; image < part.end; ++image)
        for (int64_t y = 0; y < height; ++y)
          for (int64_t x = 0; x < width; ++x) {
            const T* __restrict upper = maps + ((image * grid.height + 2 * y) * grid.width + 2 * x) * pitch;
            const T* __restrict lower = upper + grid.width * pitch;
            T* __restrict to = out + ((image * height + y) * width + x) * channels;
            for (int64_t c = 0; c < channels; ++c)
              store(to + c, 0.25f * (relu(load(upper[c]) * scale[c] + shift[c]) +
                                     relu(load(upper[pitch + c]) * scale[c] + shift[c]) +
                                     relu(load(lower[c]) * scale[c] + shift[c]) +
                                     relu(load(lower[pitch + c]) * scale[c] + shift[c])));
          }
    }
}

template <class T, class U>
void finish_rows(const T* grad, int64_t grad_pitch, const float* a, const float* b, int64_t sums_pitch, const T* maps,
                 int64_t pitch, const float* mean, int64_t mean_pitch, int64_t channels, U* out, Grid grid) {
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread)
    for (const Part& part : parts_of(grid, thread, grid.num_threads)) {
      const float* __restrict as = a + part.group * sums_pitch;
      const float* __restrict bs = b + part.group * sums_pitch;
      const float* __restrict means = mean + part.group * mean_pitch;
      for (int64_t r = part.begin; r < part.end; ++r) {
        const T* __restrict from = grad + r * grad_pitch;
        const T* __restrict values = maps + r * pitch;
        U* __restrict to = out + r * channels;
        for (int64_t c = 0; c < channels; ++c)
          store(to + c, load(from[c]) - as[c] - (load(values[c]) - means[c]) * bs[c]);
      }
    }
}

// One row backwards through ReLU and norm.
template <class S, class T>
inline void row_backward(const S* __restrict grad, float factor, const T* __restrict values, int64_t channels,
                         const float* __restrict scale, const float* __restrict shift, const float* __restrict mean,
                         T* __restrict into, bool add, float* __restrict sums, float* __restrict products) {
  for (int64_t c = 0; c < channels; ++c) {
    const float value = load(values[c]);
    const float passed = value * scale[c] + shift[c] <= 0.0f ? 0.0f : load(grad[c]) * factor;
    sums[c] += passed;
    products[c] += passed * (value - mean[c]);
    store(into + c, (add ? load(into[c]) : 0.0f) + scale[c] * passed);
  }
}

// pool: grad has a row for each 2x2 pixels, whose average was taken.
template <class S, class T>
void norm_backward(const S* grad, const T* maps, int64_t pitch, int64_t channels, Norm norm, T* into,
                   int64_t into_pitch, Sums to, Grid grid, bool pool) {
  RowSums found(grid, channels);
  const int64_t height = grid.height / 2, width = grid.width / 2, pixels = grid.height * grid.width;
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread) {
    std::vector<float> tile(2 * channels);
    const std::vector<S> nothing(channels);
    for (const Part& part : parts_of(grid, thread, grid.num_threads)) {
      const Affine affine(norm, part.group, channels);
      double* sums = found.sums[thread][part.group].data();
      for (int64_t row = part.begin; row < part.end; row += kFloatRows) {
        std::fill(tile.begin(), tile.end(), 0.0f);
        for (int64_t r = row; r < std::min(row + kFloatRows, part.end); ++r) {
          const S* from = grad + r * channels;
          if (pool) {
            const int64_t image = r / pixels, y = r % pixels / grid.width / 2, x = r % grid.width / 2;
            from = y < height && x < width ? grad + ((image * height + y) * width + x) * channels : nothing.data();
          }
          row_backward(from, pool ? 0.25f : 1.0f, maps + r * pitch, channels, affine.scale.data(),
                       affine.shift.data(), affine.mean.data(), into + r * into_pitch, to.add, tile.data(),
                       tile.data() + channels);
        }
        for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += tile[c];
      }
    }
  }
  found.finish(norm, to, grid);
}

template <class T>
void pointwise_backwards(const T* grad, int64_t grad_pitch, const float* a, const float* b, int64_t sums_pitch,
                         const T* out, int64_t out_pitch, const float* out_mean, int64_t out_mean_pitch, const T* maps,
                         int64_t pitch, int64_t channels, Norm norm, const float* weight, int64_t width, T* into,
                         int64_t into_pitch, Sums to, float* grad_weight, Grid grid, Sgemm sgemm) {
  RowSums found(grid, channels);
  // The first thread adds in place, the others beside it.
  std::vector<Scratch> beside;
  for (int thread = 1; thread < grid.num_threads; ++thread) beside.emplace_back(width * channels);
  std::memset(grad_weight, 0, sizeof(float) * width * channels);
#pragma omp parallel for schedule(static, 1) num_threads(grid.num_threads)
  for (int thread = 0; thread < grid.num_threads; ++thread) {
    float* own_weight = thread ? beside[thread - 1].data : grad_weight;
    Scratch finished(kTileRows * width), activated(kTileRows * kPanel), product(kTileRows * kPanel);
    std::vector<float> tile(2 * kPanel);
    for (const Part& part : parts_of(grid, thread, grid.num_threads)) {
      const Affine affine(norm, part.group, channels);
      const float* as = a + part.group * sums_pitch;
      const float* bs = b + part.group * sums_pitch;
      const float* means = out_mean + part.group * out_mean_pitch;
      double* sums = found.sums[thread][part.group].data();
      for (int64_t row = part.begin; row < part.end; row += kTileRows) {
        const int64_t rows = std::min(kTileRows, part.end - row);
        for (int64_t r = 0; r < rows; ++r) {
          const T* __restrict from = grad + (row + r) * grad_pitch;
          const T* __restrict values = out + (row + r) * out_pitch;
          float* __restrict into_tile = finished.data + r * width;
          for (int64_t c = 0; c < width; ++c)
            into_tile[c] = load(from[c]) - as[c] - (load(values[c]) - means[c]) * bs[c];
        }
        for (int64_t start = 0; start < channels; start += kPanel) {
          const int64_t panel = std::min(kPanel, channels - start);
          const float* scale = affine.scale.data() + start;
          const float* shift = affine.shift.data() + start;
          multiply(sgemm, false, false, rows, panel, width, finished.data, width, weight + start, channels, 0.0f,
                   product.data, panel);
          for (int64_t r = 0; r < rows; ++r) {
            if (r % kFloatRows == 0) std::fill(tile.begin(), tile.end(), 0.0f);
            const T* __restrict values = maps + (row + r) * pitch + start;
            float* __restrict to_activated = activated.data + r * panel;
            for (int64_t c = 0; c < panel; ++c) to_activated[c] = relu(load(values[c]) * scale[c] + shift[c]);
            row_backward(product.data + r * panel, 1.0f, values, panel, scale, shift, affine.mean.data() + start,
                         into + (row + r) * into_pitch + start, to.add, tile.data(), tile.data() + kPanel);
            if (r % kFloatRows != kFloatRows - 1 && r != rows - 1) continue;
            for (int64_t c = 0; c < panel; ++c) {
              sums[start + c] += tile[c];
              sums[channels + start + c] += tile[kPanel + c];
            }
          }
          multiply(sgemm, true, false, width, panel, rows, finished.data, width, activated.data, panel, 1.0f,
                   own_weight + start, channels);
        }
      }
    }
  }
  for (const Scratch& other : beside)
    for (int64_t i = 0; i < width * channels; ++i) grad_weight[i] += other.data[i];
  found.finish(norm, to, grid);
}

}  // namespace

#define FOR_TYPE(T, NAME)                                                                                              \
  void moments_##NAME(const T* maps, int64_t pitch, int64_t channels, Moments moments, Grid grid) {                    \
    moments_of(maps, pitch, channels, moments, grid);                                                                  \
  }                                                                                                                    \
  void pointwise_##NAME(const T* maps, int64_t pitch, int64_t channels, Norm norm, const float* weight, int64_t width, \
                        T* out, int64_t out_pitch, Moments moments, Grid grid, void* sgemm) {                          \
    pointwise_forward(maps, pitch, channels, norm, weight, width, out, out_pitch, moments, grid, Sgemm(sgemm));        \
  }                                                                                                                    \
  void activate_##NAME(const T* maps, int64_t pitch, int64_t channels, Norm norm, T* out, Grid grid, int32_t pool) {   \
    if (pool)                                                                                                          \
      activate_and_pool(maps, pitch, channels, norm, out, grid);                                                       \
    else                                                                                                               \
      activate_rows(maps, pitch, channels, norm, out, grid);                                                           \
  }                                                                                                                    \
  void activate_wide_##NAME(const T* maps, int64_t pitch, int64_t channels, Norm norm, float* out, Grid grid) {        \
    activate_rows(maps, pitch, channels, norm, out, grid);                                                             \
  }                                                                                                                    \
  void place_wide_##NAME(const float* from, int64_t channels, T* out, int64_t pitch, Moments moments, Grid grid) {     \
    place_rows(from, channels, out, pitch, moments, grid);                                                             \
  }                                                                                                                    \
  void finish_##NAME(const T* grad, int64_t grad_pitch, const float* a, const float* b, int64_t sums_pitch,            \
                     const T* maps, int64_t pitch, const float* mean, int64_t mean_pitch, int64_t channels, T* out,    \
                     Grid grid) {                                                                                      \
    finish_rows(grad, grad_pitch, a, b, sums_pitch, maps, pitch, mean, mean_pitch, channels, out, grid);               \
  }                                                                                                                    \
  void finish_wide_##NAME(const T* grad, int64_t grad_pitch, const float* a, const float* b, int64_t sums_pitch,       \
                          const T* maps, int64_t pitch, const float* mean, int64_t mean_pitch, int64_t channels,       \
                          float* out, Grid grid) {                                                                     \
    finish_rows(grad, grad_pitch, a, b, sums_pitch, maps, pitch, mean, mean_pitch, channels, out, grid);               \
  }                                                                                                                    \
  void norm_backward_##NAME(const T* grad, const T* maps, int64_t pitch, int64_t channels, Norm norm, T* into,         \
                            int64_t into_pitch, Sums to, Grid grid, int32_t pool) {                                    \
    norm_backward(grad, maps, pitch, channels, norm, into, into_pitch, to, grid, pool);                                \
  }                                                                                                                    \
  void norm_backward_wide_##NAME(const float* grad, const T* maps, int64_t pitch, int64_t channels, Norm norm,         \
                                 T* into, int64_t into_pitch, Sums to, Grid grid) {                                    \
    norm_backward(grad, maps, pitch, channels, norm, into, into_pitch, to, grid, false);                               \
  }                                                                                                                    \
  void pointwise_backward_##NAME(const T* grad, int64_t grad_pitch, const float* a, const float* b,                    \
                                 int64_t sums_pitch, const T* out, int64_t out_pitch, const float* out_mean,           \
                                 int64_t out_mean_pitch, const T* maps, int64_t pitch, int64_t channels, Norm norm,    \
                                 const float* weight, int64_t width, T* into, int64_t into_pitch, Sums to,             \
                                 float* grad_weight, Grid grid, void* sgemm) {                                         \
    pointwise_backwards(grad, grad_pitch, a, b, sums_pitch, out, out_pitch, out_mean, out_mean_pitch, maps, pitch,     \
                        channels, norm, weight, width, into, into_pitch, to, grad_weight, grid, Sgemm(sgemm));         \
  }

extern "C" {
FOR_TYPE(float, f32)
FOR_TYPE(Bf16, bf16)
}
