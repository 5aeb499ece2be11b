#include "conclave/examples/flags.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace conclave::examples {
namespace {

absl::string_view Absl(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

Flags& Flags::Text(std::string name, std::string help, std::string* value) {
  flags_.push_back({std::move(name), std::move(help), "TEXT", [value](std::string_view text) {
                      value->assign(text);
                      return !text.empty();
                    }});
  return *this;
}

Flags& Flags::Number(std::string name, std::string help, int64_t least, int64_t* value) {
  flags_.push_back({std::move(name), std::move(help),
                    "a number from " + std::to_string(least) + " on",
                    [value, least](std::string_view text) {
                      return absl::SimpleAtoi(Absl(text), value) && *value >= least;
                    }});
  return *this;
}

Flags& Flags::Time(std::string name, std::string help, absl::Duration* value) {
  flags_.push_back({std::move(name), std::move(help), "a time such as 10s or 250ms",
                    [value](std::string_view text) {
                      return absl::ParseDuration(Absl(text), value) &&
                             *value >= absl::ZeroDuration();
                    }});
  return *this;
}

Flags& Flags::List(std::string name, std::string help, std::vector<std::string>* value) {
  flags_.push_back({std::move(name), std::move(help), "one or more, with commas between them",
                    [value](std::string_view text) {
                      *value = absl::StrSplit(Absl(text), ',');
                      return std::find(value->begin(), value->end(), "") == value->end();
                    }});
  return *this;
}

void Flags::Parse(int argc, char** argv) {
  const std::string_view program = argv[0];
  for (int i = 1; i < argc; ++i) {
    std::string_view argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      PrintUsage(program);
      std::exit(0);
    }
    if (!argument.starts_with("--")) {
      Refuse(program, "\"" + std::string(argument) + "\" is not a flag: flags begin with --");
    }
    const size_t equals = argument.find('=');
    const std::string name(argument.substr(2, equals == argument.npos ? equals : equals - 2));
    const auto flag = std::find_if(flags_.begin(), flags_.end(),
                                   [&name](const Flag& known) { return known.name == name; });
    if (flag == flags_.end()) Refuse(program, "there is no flag --" + name);
    if (equals == argument.npos && ++i == argc) {
      Refuse(program, "--" + name + " needs a value: " + flag->form);
    }
    const std::string_view value =
        equals == argument.npos ? std::string_view(argv[i]) : argument.substr(equals + 1);
    if (!flag->set(value)) {
      Refuse(program,
             "--" + name + " cannot be \"" + std::string(value) + "\": it takes " + flag->form);
    }
  }
}

void Flags::PrintUsage(std::string_view program) const {
  std::printf("%s\n\nusage: %.*s [--flag value]...\n", purpose_.c_str(),
              static_cast<int>(program.size()), program.data());
  for (const Flag& flag : flags_) {
    std::printf("  --%-12s %s (%s)\n", flag.name.c_str(), flag.help.c_str(), flag.form.c_str());
  }
}

void Flags::Refuse(std::string_view program, const std::string& complaint) const {
  std::fprintf(stderr, "%.*s: %s. See --help.\n", static_cast<int>(program.size()), program.data(),
               complaint.c_str());
  std::exit(2);
}

}  // namespace conclave::examples
