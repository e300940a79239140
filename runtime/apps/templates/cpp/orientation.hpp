// How a camera was held: the EXIF tag of JPEG files, which stb_image does not read.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "preprocess.hpp"

// A TIFF structure inside a JPEG file: numbers of either byte order, read only where they lie inside the file.
class Tiff {
 public:
  Tiff(const std::vector<std::uint8_t>& bytes, std::size_t start, std::size_t end)
      : bytes_(bytes), start_(start), end_(end), little_(start < end && bytes[start] == 'I') {}

  std::uint32_t number(std::size_t at, int size) const {
    std::uint32_t value = 0;
    if (start_ + at + size > end_) return 0;
    for (int i = 0; i < size; ++i) value = value << 8 | bytes_[start_ + at + (little_ ? size - 1 - i : i)];
    return value;
  }

  // 1 to 8 as EXIF numbers them; 1, upright, where there is no such tag.
  int orientation() const {
    constexpr std::uint32_t tag = 0x0112;
    const std::size_t directory = number(4, 4);
    const std::uint32_t entries = number(directory, 2);
    for (std::uint32_t i = 0; i < entries; ++i) {
      const std::size_t entry = directory + 2 + 12 * static_cast<std::size_t>(i);
      if (number(entry, 2) != tag) continue;
      const auto value = static_cast<int>(number(entry + 8, 2));
      return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
  }

 private:
  const std::vector<std::uint8_t>& bytes_;
  std::size_t start_;
  std::size_t end_;
  bool little_;
};

// The orientation of a JPEG file; 1 for every other one.
inline int jpeg_orientation(const std::vector<std::uint8_t>& bytes) {
  if (bytes.size() < 4 || bytes[0] != 0xFF || bytes[1] != 0xD8) return 1;
  std::size_t at = 2;
  while (at + 4 <= bytes.size() && bytes[at] == 0xFF && bytes[at + 1] != 0xDA) {  // segments, up to the pixels
    const std::size_t end = at + 2 + (bytes[at + 2] << 8 | bytes[at + 3]);
    const bool exif = bytes[at + 1] == 0xE1 && at + 10 <= bytes.size() && std::memcmp(&bytes[at + 4], "Exif\0\0", 6) == 0;
    if (exif && end <= bytes.size()) return Tiff(bytes, at + 10, end).orientation();
    at = end;
  }
  return 1;
}

// The image as it was seen: mirrored and turned back.
inline Pixels upright(Pixels old, int orientation) {
  if (orientation == 1) return old;
  const bool turned = orientation >= 5;  // rows become columns
  const bool flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;  // of the old image
  const bool flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Pixels made{{}, turned ? old.height : old.width, turned ? old.width : old.height, old.channels};
  made.data.reserve(old.data.size());
  for (int y = 0; y < made.height; ++y) {
    for (int x = 0; x < made.width; ++x) {
      int from_x = turned ? y : x;
      int from_y = turned ? x : y;
      if (flip_x) from_x = old.width - 1 - from_x;
      if (flip_y) from_y = old.height - 1 - from_y;
      const auto from = old.data.begin() + (static_cast<std::ptrdiff_t>(from_y) * old.width + from_x) * old.channels;
      made.data.insert(made.data.end(), from, from + old.channels);
    }
  }
  return made;
}
