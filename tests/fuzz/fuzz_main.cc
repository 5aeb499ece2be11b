// Runs a fuzz target without libFuzzer: its seeds, the files of a corpus, and seeded mutations of
// all of them.
//
//   NAME [--mutations=N] [--seed=S] [--write-seeds=DIR] [CORPUS...]
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/base/prng.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace {

// The kinds of damage that parsers fall for: bits, interesting integers, pieces moved, doubled, cut
// out or cut off.
void Mutate(conclave::Prng& prng, std::string* input) {
  static constexpr uint64_t kInteresting[] = {
      0, 1, 7, 8, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fffffff, 0xffffffff, 1ull << 63, ~0ull};
  const uint64_t times = 1 + prng.Below(4);
  for (uint64_t i = 0; i < times && !input->empty(); ++i) {
    const size_t at = prng.Below(input->size());
    const size_t rest = input->size() - at;
    const size_t length = 1 + prng.Below(std::min<size_t>(rest, 1 + prng.Below(64)));
    switch (prng.Below(6)) {
      case 0:
        (*input)[at] = static_cast<char>((*input)[at] ^ (1 << prng.Below(8)));
        break;
      case 1: {
        const uint64_t value = kInteresting[prng.Below(std::size(kInteresting))];
        for (size_t k = 0; k < std::min<size_t>(rest, 1u << prng.Below(4)); ++k) {
          (*input)[at + k] = static_cast<char>(value >> (8 * k));
        }
        break;
      }
      case 2:
        input->insert(prng.Below(input->size()), input->substr(at, length));
        break;
      case 3:
        input->erase(at, length);
        break;
      case 4:
        input->resize(at);
        break;
      case 5:
        for (size_t k = 0; k < length; ++k) (*input)[at + k] = static_cast<char>(prng.Next());
        break;
    }
  }
}

void Run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t mutations = 1000;
  uint64_t seed = 1;
  std::vector<std::string> inputs = FuzzSeeds();
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument.starts_with("--mutations=")) {
      mutations = std::strtoull(argv[i] + 12, nullptr, 10);
    } else if (argument.starts_with("--seed=")) {
      seed = std::strtoull(argv[i] + 7, nullptr, 10);
    } else if (argument.starts_with("--write-seeds=")) {
      const std::filesystem::path directory = argument.substr(14);
      std::filesystem::create_directories(directory);
      for (size_t k = 0; k < inputs.size(); ++k) {
        std::ofstream(directory / ("seed-" + std::to_string(k)), std::ios::binary) << inputs[k];
      }
      return 0;
    } else if (std::filesystem::is_directory(argument)) {
      for (const auto& entry : std::filesystem::directory_iterator(argument)) {
        std::ifstream file(entry.path(), std::ios::binary);
        inputs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
      }
    }
  }
  for (const std::string& input : inputs) Run(input);
  conclave::Prng prng(seed);
  for (uint64_t i = 0; i < mutations; ++i) {
    std::string input = inputs[prng.Below(inputs.size())];
    Mutate(prng, &input);
    Run(input);
  }
  std::printf("%zu inputs and %llu mutations\n", inputs.size(),
              static_cast<unsigned long long>(mutations));
  return 0;
}
