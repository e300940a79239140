#include "images.hpp"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "orientation.hpp"

#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG  // the others have no signature that a text file could not have by chance, or are rare
#define STBI_ONLY_JPEG
#define STBI_ONLY_GIF
#define STBI_ONLY_BMP
#define STBI_FAILURE_USERMSG
#include <stb_image.h>

namespace {

std::vector<std::uint8_t> read_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  if (error) throw std::runtime_error(error.message());
  std::vector<std::uint8_t> bytes(size);
  std::ifstream stream(path, std::ios::binary);
  if (!stream.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size))) {
    throw std::runtime_error("it cannot be read");
  }
  return bytes;
}

// Bytes as stb_image reads them. It fills up what a truncated JPEG lacks; `exhausted` tells that it did.
struct Source {
  const std::vector<std::uint8_t>& bytes;
  std::size_t at = 0;
  bool exhausted = false;

  static int read(void* user, char* data, int size) {
    Source& self = *static_cast<Source*>(user);
    const std::size_t count = std::min(static_cast<std::size_t>(size), self.bytes.size() - self.at);
    std::memcpy(data, self.bytes.data() + self.at, count);
    self.at += count;
    self.exhausted = self.exhausted || count == 0;
    return static_cast<int>(count);
  }

  static void skip(void* user, int count) {
    Source& self = *static_cast<Source*>(user);
    const auto wanted = static_cast<long long>(self.at) + count;  // stb_image also steps back
    self.at = static_cast<std::size_t>(std::clamp(wanted, 0LL, static_cast<long long>(self.bytes.size())));
  }

  static int eof(void* user) {
    const Source& self = *static_cast<Source*>(user);
    return self.at == self.bytes.size();
  }
};

std::string with_commas(long long number) {
  std::string digits = std::to_string(number);
  for (std::size_t at = digits.size(); at > 3;) digits.insert(at -= 3, ",");
  return digits;
}

// Why stb_image refuses: its reasons are sentences that do not say what is wrong with a truncated file.
std::string reason(const Source& source) { return source.exhausted ? "the file is truncated" : stbi_failure_reason(); }

// RGBA -> RGB on the background.
std::vector<std::uint8_t> flatten(const std::uint8_t* rgba, std::size_t pixels, const std::array<int, 3>& background) {
  std::vector<std::uint8_t> rgb(pixels * 3);
  for (std::size_t i = 0; i < pixels; ++i) {
    const int alpha = rgba[4 * i + 3];
    for (std::size_t channel = 0; channel < 3; ++channel) {
      const int blended = rgba[4 * i + channel] * alpha + background[channel] * (255 - alpha);
      rgb[3 * i + channel] = static_cast<std::uint8_t>((blended + 127) / 255);
    }
  }
  return rgb;
}

Pixels decode(const std::vector<std::uint8_t>& bytes, const Settings& settings, const std::string& name) {
  const stbi_io_callbacks callbacks{Source::read, Source::skip, Source::eof};
  int width = 0, height = 0, channels = 0;
  Source header{bytes};
  if (!stbi_info_from_callbacks(&callbacks, &header, &width, &height, &channels)) throw std::runtime_error(reason(header));
  if (static_cast<long long>(width) * height > settings.max_pixels) {  // before anything is decoded
    throw std::length_error(name + ": expected at most " + with_commas(settings.max_pixels) + " pixels, got " +
                            std::to_string(width) + " x " + std::to_string(height));
  }
  Source source{bytes};
  const std::unique_ptr<std::uint8_t, void (*)(void*)> rgba(
      stbi_load_from_callbacks(&callbacks, &source, &width, &height, &channels, 4), stbi_image_free);
  if (!rgba || source.exhausted) throw std::runtime_error(reason(source));
  return {flatten(rgba.get(), static_cast<std::size_t>(width) * height, settings.background), width, height, 3};
}

}  // namespace

Pixels read_image(const std::filesystem::path& path, const Settings& settings) {
  try {
    const std::vector<std::uint8_t> bytes = read_file(path);
    return upright(decode(bytes, settings, path.string()), jpeg_orientation(bytes));
  } catch (const std::length_error&) {
    throw;
  } catch (const std::exception& error) {
    throw std::runtime_error(path.string() + ": expected a complete image file, got: " + error.what());
  }
}
