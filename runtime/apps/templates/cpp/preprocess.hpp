// From decoded pixels to the model's input, as settings.json says. The standard library only.
// Resizing is Pillow's: antialiased filters, one pass per axis, integer weights, whole grey levels after each pass.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "settings.hpp"

// Interleaved, row by row.
struct Pixels {
  std::vector<std::uint8_t> data;
  int width;
  int height;
  int channels;
};

namespace preprocess {

// Where a new pixel draws from: the first old one, and the weights of that and the next ones.
struct Taps {
  int first;
  std::vector<std::int32_t> weights;
};

constexpr int kWeightBits = 22;  // the weight 1 is 2^22
constexpr std::int32_t kOne = 1 << kWeightBits;

inline double bilinear(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

inline double bicubic(double x) {
  constexpr double a = -0.5;
  const double d = std::abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}

inline std::vector<Taps> nearest_weights(int old_size, int new_size) {
  const double scale = static_cast<double>(old_size) / new_size;
  std::vector<Taps> all;
  double centre = scale / 2;
  for (int i = 0; i < new_size; ++i) {
    all.push_back({std::min(old_size - 1, static_cast<int>(centre)), {kOne}});
    centre += scale;  // added up as Pillow does: between two pixels, rounding errors decide
  }
  return all;
}

inline std::vector<Taps> filter_weights(int old_size, int new_size, const std::string& interpolation) {
  if (interpolation == "nearest") return nearest_weights(old_size, new_size);
  const bool cubic = interpolation == "bicubic";
  const double scale = static_cast<double>(old_size) / new_size;
  const double stretch = std::max(1.0, scale);  // a filter that shrinks is widened: that is the antialiasing
  const double support = (cubic ? 2 : 1) * stretch;
  std::vector<Taps> all;
  for (int i = 0; i < new_size; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(centre - support + 0.5)));
    const int last = std::min(old_size, static_cast<int>(std::floor(centre + support + 0.5)));
    std::vector<double> shares;
    double sum = 0;
    for (int x = first; x < last; ++x) {
      const double at = (x - centre + 0.5) / stretch;
      shares.push_back(cubic ? bicubic(at) : bilinear(at));
      sum += shares.back();
    }
    Taps taps{first, {}};
    for (const double share : shares) taps.weights.push_back(static_cast<std::int32_t>(std::round(share / sum * kOne)));
    all.push_back(std::move(taps));
  }
  return all;
}

// One pass: every new pixel is a weighted sum of old ones along an axis.
inline Pixels resize_axis(const Pixels& old, int size, const std::string& interpolation, bool along_x) {
  const std::vector<Taps> taps = filter_weights(along_x ? old.width : old.height, size, interpolation);
  Pixels made{{}, along_x ? size : old.width, along_x ? old.height : size, old.channels};
  made.data.reserve(static_cast<std::size_t>(made.width) * made.height * made.channels);
  const std::size_t row = static_cast<std::size_t>(old.width) * old.channels;
  const std::size_t step = along_x ? old.channels : row;  // from one old pixel to the next along the axis
  for (int y = 0; y < made.height; ++y) {
    for (int x = 0; x < made.width; ++x) {
      const Taps& from = taps[along_x ? x : y];
      const std::size_t start = along_x ? y * row + static_cast<std::size_t>(from.first) * old.channels
                                        : from.first * row + static_cast<std::size_t>(x) * old.channels;
      for (int channel = 0; channel < old.channels; ++channel) {
        std::int64_t sum = kOne / 2;
        const std::uint8_t* level = &old.data[start + channel];
        for (const std::int32_t weight : from.weights) {
          sum += static_cast<std::int64_t>(weight) * *level;
          level += step;
        }
        made.data.push_back(static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> kWeightBits, 0, 255)));
      }
    }
  }
  return made;
}

inline Pixels resize(Pixels pixels, int width, int height, const std::string& interpolation) {
  if (width != pixels.width) pixels = resize_axis(pixels, width, interpolation, true);
  return height == pixels.height ? pixels : resize_axis(pixels, height, interpolation, false);
}

inline Pixels crop(const Pixels& old, int left, int top, int width, int height) {
  Pixels made{{}, width, height, old.channels};
  made.data.reserve(static_cast<std::size_t>(width) * height * old.channels);
  for (int y = 0; y < height; ++y) {
    const auto from = old.data.begin() + (static_cast<std::ptrdiff_t>(top + y) * old.width + left) * old.channels;
    made.data.insert(made.data.end(), from, from + static_cast<std::ptrdiff_t>(width) * old.channels);
  }
  return made;
}

// Luma as Pillow computes it: integers, scaled by 2^16.
inline Pixels grey(const Pixels& rgb) {
  Pixels made{{}, rgb.width, rgb.height, 1};
  made.data.reserve(rgb.data.size() / 3);
  for (std::size_t i = 0; i + 2 < rgb.data.size(); i += 3) {
    made.data.push_back(
        static_cast<std::uint8_t>((rgb.data[i] * 19595 + rgb.data[i + 1] * 38470 + rgb.data[i + 2] * 7471 + 0x8000) >> 16));
  }
  return made;
}

// Where the crop begins when `margin` pixels are left over.
inline int offset(int margin, const Resizing& resizing) {
  const int down = margin / 2;
  return resizing.round_to_even && margin % 2 == 1 && down % 2 == 1 ? down + 1 : down;
}

// The part of an image that the model sees, in its size.
inline Pixels cut(Pixels pixels, const Resizing& resizing) {
  auto [height, width] = resizing.to;
  const int shorter = std::min(pixels.width, pixels.height);
  const int longer = std::max(pixels.width, pixels.height);
  if (resizing.fit == "square") {  // cropped first, so that nothing outside the central square blends in
    pixels = crop(pixels, (pixels.width - shorter) / 2, (pixels.height - shorter) / 2, shorter, shorter);
  } else if (resizing.fit == "shortest") {  // keeps the shape: the shorter side gets the wanted length
    const int rest = static_cast<int>(static_cast<double>(width) * longer / shorter);
    (pixels.width <= pixels.height ? height : width) = rest;
  }
  const auto [crop_height, crop_width] = resizing.crop;
  pixels = resize(std::move(pixels), width, height, resizing.interpolation);
  return crop(pixels, offset(width - crop_width, resizing), offset(height - crop_height, resizing), crop_width, crop_height);
}

// RGB of any size -> the grey levels [H, W, C] that the model sees.
inline Pixels levels(Pixels rgb, const Settings& settings) {
  return cut(settings.channels == 1 ? grey(rgb) : std::move(rgb), settings.resizing);
}

// [H, W, C] of grey levels -> float32 [C, H, W], scaled and normalised.
inline std::vector<float> normalise(const Pixels& pixels, const Settings& settings) {
  const std::size_t area = static_cast<std::size_t>(pixels.width) * pixels.height;
  std::vector<float> scaled(area * pixels.channels);
  for (int channel = 0; channel < pixels.channels; ++channel) {
    for (std::size_t i = 0; i < area; ++i) {
      const float level = pixels.data[i * pixels.channels + channel] * (1.0f / 255);
      scaled[channel * area + i] = (level - settings.mean[channel]) / settings.std[channel];
    }
  }
  return scaled;
}

}  // namespace preprocess
