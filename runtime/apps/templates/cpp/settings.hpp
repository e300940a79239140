// What settings.json says about the model and its images.
#pragma once

#include <array>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

struct Size {
  int height;
  int width;
};

// From an image of any size to the pixels that are fed.
struct Resizing {
  std::string fit;  // "square": the central square, resized; "squash": all of it; "shortest": resized by its shorter side
  Size to;          // for "shortest", both are the shorter side
  Size crop;
  bool round_to_even;         // where the crop begins when an odd number of pixels is left over; else down
  std::string interpolation;  // "nearest", "bilinear" or "bicubic"
};

struct Settings {
  std::string model;
  std::string input;
  bool takes_pixels;  // uint8 [1, H, W, C]: the graph scales them itself; else float32 [1, C, H, W]
  std::string output;
  bool gives_probabilities;
  bool gives_embedding;  // neither of the two: logits
  int channels;
  Resizing resizing;
  std::vector<float> mean;
  std::vector<float> std;
  std::vector<std::string> labels;
  std::array<int, 3> background;  // what shows through transparent pixels, RGB
  long long max_pixels;
  double tolerance;  // of |answer - expected| / max |expected|
};

// Throws std::runtime_error where the file is missing, nlohmann::json::exception where it is not what it should be.
inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream stream(path);
  if (!stream) throw std::runtime_error(path.string() + ": cannot be read");
  return nlohmann::json::parse(stream);
}

inline Settings read_settings(const std::filesystem::path& path) {
  const nlohmann::json json = read_json(path);
  const auto size = [](const nlohmann::json& pair) { return Size{pair.at(0), pair.at(1)}; };
  const nlohmann::json& resizing = json.at("resizing");
  Settings settings;
  settings.model = json.at("model");
  settings.input = json.at("input").at("name");
  settings.takes_pixels = json.at("input").at("dtype") == "uint8";
  settings.output = json.at("output").at("name");
  settings.gives_probabilities = json.at("answers") == "probabilities";
  settings.gives_embedding = json.at("answers") == "embedding";
  settings.channels = json.at("channels");
  settings.resizing.fit = resizing.at("fit");
  settings.resizing.to = size(resizing.at("to"));
  settings.resizing.crop = size(resizing.at("crop"));
  settings.resizing.round_to_even = resizing.at("crop_rounding") == "even";
  settings.resizing.interpolation = resizing.at("interpolation");
  settings.mean = json.at("mean").get<std::vector<float>>();
  settings.std = json.at("std").get<std::vector<float>>();
  settings.labels = json.at("labels").get<std::vector<std::string>>();
  settings.background = json.at("background").get<std::array<int, 3>>();
  settings.max_pixels = json.at("max_pixels");
  settings.tolerance = json.at("tolerance");
  return settings;
}
