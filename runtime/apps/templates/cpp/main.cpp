// Classify images with model.onnx. Without arguments: check that sample.png gets the answer that it got at export.
// Usage: classify [--json] [--app FOLDER] [IMAGE ...]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "classifier.hpp"
#include "images.hpp"

namespace {

void report(Classifier& classifier, const std::string& path, bool as_json) {
  Pixels image = read_image(path, classifier.settings);
  const auto start = std::chrono::steady_clock::now();
  const std::vector<float> answers = classifier(std::move(image));
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - start;
  if (as_json) {
    const nlohmann::json line = {
        {"image", path}, {"label", classifier.label(answers)}, {"answers", answers}, {"milliseconds", spent.count()}};
    std::puts(line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());  // a path need not be UTF-8
    return;
  }
  std::printf("%s (%.1f ms)\n", path.c_str(), spent.count());
  if (classifier.settings.gives_embedding) {
    std::printf("  %s\n", classifier.label(answers).c_str());
    return;
  }
  const std::vector<float> probabilities = classifier.probabilities(answers);
  std::vector<std::size_t> ranked(probabilities.size());
  std::iota(ranked.begin(), ranked.end(), 0);
  std::sort(ranked.begin(), ranked.end(), [&](auto a, auto b) { return probabilities[a] > probabilities[b]; });
  for (std::size_t i = 0; i < std::min<std::size_t>(5, ranked.size()); ++i) {
    std::printf("  %5.1f%%  %s\n", 100 * probabilities[ranked[i]], classifier.settings.labels.at(ranked[i]).c_str());
  }
}

// Whether the sample gets its expected answer, within what the model's precision allows.
bool check(Classifier& classifier, const std::filesystem::path& folder) {
  const nlohmann::json expected = read_json(folder / "expected.json");
  const std::string image = expected.at("image"), wanted = expected.at("label");
  const auto numbers = expected.at("answers").get<std::vector<float>>();
  const std::vector<float> answers = classifier(read_image(folder / image, classifier.settings));
  const std::string label = classifier.label(answers);
  float scale = 0, error = 0;
  bool good = answers.size() == numbers.size() && label == wanted;
  for (const float number : numbers) scale = std::max(scale, std::abs(number));
  for (std::size_t i = 0; i < std::min(answers.size(), numbers.size()); ++i) {
    const float difference = std::abs(answers[i] - numbers[i]) / scale;
    good = good && difference <= classifier.settings.tolerance;  // false for NaN too
    error = std::max(error, difference);
  }
  std::printf("%s: %s, expected %s; answers differ by %.1e: %s\n", image.c_str(), label.c_str(), wanted.c_str(), error,
              good ? "ok" : "WRONG");
  return good;
}

// 0; 1 where the sample's answer is wrong; 2 where an image cannot be read.
int run(const std::filesystem::path& folder, const std::vector<std::string>& images, bool as_json) {
  Classifier classifier(folder);
  if (images.empty()) return check(classifier, folder) ? 0 : 1;
  int code = 0;
  for (const std::string& path : images) {
    try {
      report(classifier, path, as_json);
    } catch (const std::exception& error) {
      std::fflush(stdout);
      std::fprintf(stderr, "error: %s\n", error.what());
      code = 2;
    }
  }
  return code;
}

}  // namespace

int main(int count, char** words) {
  // The headers that this was compiled with may be newer than the library that it runs with.
  if (OrtGetApiBase()->GetApi(ORT_API_VERSION) == nullptr) {
    std::fprintf(stderr, "error: expected ONNX Runtime 1.%d or newer, got %s\n", ORT_API_VERSION,
                 OrtGetApiBase()->GetVersionString());
    return 3;
  }
  std::filesystem::path folder = APP_FOLDER;  // where CMake found this example; --app where it was moved
  std::vector<std::string> images;
  bool as_json = false;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    if (word == "--json") {
      as_json = true;
    } else if (word == "--app" && i + 1 < count) {
      folder = words[++i];
    } else if (word.rfind("--", 0) == 0) {
      std::fprintf(stderr, "usage: classify [--json] [--app FOLDER] [IMAGE ...]\n");
      return 2;
    } else {
      images.push_back(word);
    }
  }
  try {
    return run(folder, images, as_json);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
