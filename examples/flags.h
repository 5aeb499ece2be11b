// The command line of the examples: `--name value` or `--name=value`.
//
// A flag that is unknown, lacks its value or has a bad one ends the program with exit code 2 and a
// line that names the flag and says how to put it right.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"

namespace conclave::examples {

class Flags {
 public:
  // `purpose` is the first line of --help.
  explicit Flags(std::string purpose) : purpose_(std::move(purpose)) {}

  // Each names a flag, tells what it is for, and says where its value goes (and what it is without
  // the flag).
  Flags& Text(std::string name, std::string help, std::string* value);
  Flags& Number(std::string name, std::string help, int64_t least, int64_t* value);
  Flags& Time(std::string name, std::string help, absl::Duration* value);  // "10s", "250ms"
  Flags& List(std::string name, std::string help, std::vector<std::string>* value);  // "a,b,c"

  // Prints the usage for --help and exits with 0.
  void Parse(int argc, char** argv);

 private:
  struct Flag {
    std::string name;
    std::string help;
    std::string form;  // what a value looks like, for messages
    std::function<bool(std::string_view)> set;
  };

  void PrintUsage(std::string_view program) const;
  [[noreturn]] void Refuse(std::string_view program, const std::string& complaint) const;

  std::string purpose_;
  std::vector<Flag> flags_;
};

}  // namespace conclave::examples
