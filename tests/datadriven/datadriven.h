// Scripts as tests: a file of commands and what they print.
//
//     # a comment
//     command argument key=value list=(1,2,3)
//     more input, if the command wants it
//     ----
//     what it prints
//
// A blank line ends a block. With CONCLAVE_REWRITE=1 in the environment the file is written anew
// with what the commands print now; then read the difference before you commit it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace conclave::datadriven {

struct Command {
  std::string name;
  std::vector<std::string> words;                                       // arguments without "="
  std::vector<std::pair<std::string, std::vector<std::string>>> named;  // key=value, key=(a,b)
  std::vector<std::string> input;                                       // the lines below the first
  std::string position;                                                 // file:line

  bool Has(std::string_view key) const;
  // Empty if there is no such key. A scalar is a list of one.
  std::vector<std::string> List(std::string_view key) const;
  uint64_t Number(std::string_view key, uint64_t otherwise) const;
  // The argument at `position` as a number.
  uint64_t WordNumber(size_t position) const;
};

using Handler = std::function<std::string(const Command&)>;

// Runs one file, and reports each block that prints something else as a failure of the present
// test.
void RunScript(const std::string& path, const Handler& handler);

// The scripts in a folder, sorted by name.
std::vector<std::string> ScriptsIn(const std::string& folder);

}  // namespace conclave::datadriven
