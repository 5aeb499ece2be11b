// What a fuzz target offers: libFuzzer's entry, and the inputs to start from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Must return 0, and end the process when something is wrong.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Valid inputs of all kinds.
std::vector<std::string> FuzzSeeds();
