#include "conclave/tests/datadriven/datadriven.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace conclave::datadriven {
namespace {

constexpr std::string_view kSeparator = "----";

std::vector<std::string> SplitList(std::string_view text) {
  std::vector<std::string> items;
  if (text.starts_with('(') && text.ends_with(')')) text = text.substr(1, text.size() - 2);
  if (text.empty()) return items;
  while (true) {
    const size_t comma = text.find(',');
    items.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return items;
    text.remove_prefix(comma + 1);
  }
}

Command Parse(const std::vector<std::string>& lines, std::string position) {
  Command command;
  command.position = std::move(position);
  command.input.assign(lines.begin() + 1, lines.end());
  std::istringstream words(lines.front());
  words >> command.name;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) {
      command.words.push_back(word);
    } else {
      command.named.emplace_back(word.substr(0, equals),
                                 SplitList(std::string_view(word).substr(equals + 1)));
    }
  }
  return command;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace

bool Command::Has(std::string_view key) const {
  return std::any_of(named.begin(), named.end(),
                     [&](const auto& item) { return item.first == key; }) ||
         std::find(words.begin(), words.end(), key) != words.end();
}

std::vector<std::string> Command::List(std::string_view key) const {
  for (const auto& [name, values] : named) {
    if (name == key) return values;
  }
  return {};
}

uint64_t Command::Number(std::string_view key, uint64_t otherwise) const {
  const std::vector<std::string> values = List(key);
  return values.empty() ? otherwise : std::strtoull(values.front().c_str(), nullptr, 10);
}

uint64_t Command::WordNumber(size_t position) const {
  return position < words.size() ? std::strtoull(words[position].c_str(), nullptr, 10) : 0;
}

void RunScript(const std::string& path, const Handler& handler) {
  std::ifstream in(path);
  ASSERT_TRUE(in.is_open()) << path;
  const bool rewrite = std::getenv("CONCLAVE_REWRITE") != nullptr;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);

  std::ostringstream rewritten;
  for (size_t at = 0; at < lines.size();) {
    if (lines[at].empty() || lines[at].starts_with('#')) {
      rewritten << lines[at++] << "\n";
      continue;
    }
    const std::string position = path + ":" + std::to_string(at + 1);
    std::vector<std::string> command;
    while (at < lines.size() && lines[at] != kSeparator) command.push_back(lines[at++]);
    ASSERT_LT(at, lines.size()) << position << ": no " << kSeparator << " after the command";
    ++at;
    std::vector<std::string> expected;
    while (at < lines.size() && !lines[at].empty()) expected.push_back(lines[at++]);

    const std::vector<std::string> printed = Lines(handler(Parse(command, position)));
    if (!rewrite) {
      EXPECT_EQ(printed, expected) << position << ": " << command.front();
    }
    for (const std::string& line : command) rewritten << line << "\n";
    rewritten << kSeparator << "\n";
    for (const std::string& line : printed) rewritten << line << "\n";
  }
  if (rewrite) std::ofstream(path) << rewritten.str();
}

std::vector<std::string> ScriptsIn(const std::string& folder) {
  std::vector<std::string> paths;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    if (item.path().extension() == ".txt") paths.push_back(item.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace conclave::datadriven
