// Image files -> RGB pixels.
#pragma once

#include <filesystem>

#include "preprocess.hpp"

// Decode a PNG, JPEG, GIF or BMP file to 8-bit RGB, upright, on the background. 16 bits keep their upper 8; of an animation the
// first frame counts. Throws std::runtime_error with one line: the file is missing, too large, truncated or no image.
Pixels read_image(const std::filesystem::path& path, const Settings& settings);
