// The model, and what it needs to know about images. This is the class to copy.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <vector>

#include <onnxruntime_cxx_api.h>

#include "preprocess.hpp"
#include "settings.hpp"

class Classifier {
 public:
  // A folder that holds settings.json and the model. Throws Ort::Exception where the model cannot be loaded.
  explicit Classifier(const std::filesystem::path& folder)
      : settings(read_settings(folder / "settings.json")),
        session_(environment_, (folder / settings.model).c_str(), options()) {}

  const Settings settings;

  // RGB pixels of any size -> the model's answers, one number per class: logits or probabilities, as settings.json says.
  std::vector<float> operator()(Pixels rgb) {
    Pixels pixels = preprocess::levels(std::move(rgb), settings);
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
    if (settings.takes_pixels) {
      const std::array<std::int64_t, 4> shape{1, pixels.height, pixels.width, pixels.channels};
      return run(Ort::Value::CreateTensor<std::uint8_t>(memory, pixels.data.data(), pixels.data.size(), shape.data(), 4));
    }
    std::vector<float> scaled = preprocess::normalise(pixels, settings);
    const std::array<std::int64_t, 4> shape{1, pixels.channels, pixels.height, pixels.width};
    return run(Ort::Value::CreateTensor<float>(memory, scaled.data(), scaled.size(), shape.data(), 4));
  }

  // Softmax of logits; probabilities stay what they are.
  std::vector<float> probabilities(std::vector<float> answers) const {
    if (settings.gives_probabilities) return answers;
    const float largest = *std::max_element(answers.begin(), answers.end());
    float sum = 0;
    for (float& answer : answers) sum += answer = std::exp(answer - largest);
    for (float& answer : answers) answer /= sum;
    return answers;
  }

  // The class of the largest answer; an embedding has no classes.
  std::string label(const std::vector<float>& answers) const {
    if (settings.gives_embedding) return "embedding of " + std::to_string(answers.size()) + " values";
    return settings.labels.at(std::max_element(answers.begin(), answers.end()) - answers.begin());
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.AddConfigEntry("session.x64quantprecision", "1");  // int8 without overflow on processors without VNNI
    return options;
  }

  std::vector<float> run(const Ort::Value& input) {
    const char* inputs[] = {settings.input.c_str()};
    const char* outputs[] = {settings.output.c_str()};
    const std::vector<Ort::Value> results = session_.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);
    const float* answers = results.front().GetTensorData<float>();
    return {answers, answers + results.front().GetTensorTypeAndShapeInfo().GetElementCount()};
  }

  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "classify"};
  Ort::Session session_;
};
