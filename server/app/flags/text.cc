// --help, and the table of docs/configuration.md.
#include "absl/strings/str_cat.h"
#include "conclave/server/app/flags/table.h"

namespace conclave::app {
namespace {

constexpr const char* FateName(FlagFate fate) {
  switch (fate) {
    case FlagFate::kWorks:
      return "works";
    case FlagFate::kIgnored:
      return "accepted, no effect";
    case FlagFate::kRefused:
      return "refused";
  }
  return "";
}

void AppendFate(FlagFate fate, const char* title, std::string* text) {
  std::string rows;
  for (const FlagGroup& group : FlagGroups()) {
    for (const FlagEntry& flag : group.flags) {
      if (flag.fate == fate) absl::StrAppend(&rows, "  --", flag.name, ": ", flag.help, "\n");
    }
  }
  if (!rows.empty()) absl::StrAppend(text, "\n", title, ":\n", rows);
}

}  // namespace

std::string HelpText() {
  std::string text =
      "conclave: service discovery and coordination, speaking the etcd v3 protocol.\n\n"
      "Usage: conclave [--flag=value ...]\n"
      "Without flags it serves clients at http://127.0.0.1:2379 and keeps its data in "
      "default.conclave.\n"
      "Every flag can be set by its variable too: --data-dir is ETCD_DATA_DIR.\n";
  for (const FlagGroup& group : FlagGroups()) {
    std::string rows;
    for (const FlagEntry& flag : group.flags) {
      if (flag.fate != FlagFate::kWorks) continue;
      absl::StrAppend(&rows, "  --", flag.name);
      if (*flag.default_text != '\0') absl::StrAppend(&rows, " '", flag.default_text, "'");
      absl::StrAppend(&rows, "\n      ", flag.help, "\n");
    }
    if (!rows.empty()) absl::StrAppend(&text, "\n", group.title, ":\n", rows);
  }
  absl::StrAppend(&text, "\nOther:\n  --help\n  --version\n");
  AppendFate(FlagFate::kIgnored, "Accepted, without effect", &text);
  AppendFate(FlagFate::kRefused, "Known, but refused", &text);
  return text;
}

std::string ManualText() {
  std::string text;
  for (const FlagGroup& group : FlagGroups()) {
    absl::StrAppend(&text, "### ", group.title, "\n\n",
                    "| flag | state | default | what it does, or why not |\n|---|---|---|---|\n");
    for (const FlagEntry& flag : group.flags) {
      absl::StrAppend(&text, "| `--", flag.name, "` | ", FateName(flag.fate), " | ");
      if (*flag.default_text != '\0') absl::StrAppend(&text, "`", flag.default_text, "`");
      absl::StrAppend(
          &text, " | ", flag.help,
          flag.had_experimental_name ? "; also with `experimental-` before its name" : "", " |\n");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

}  // namespace conclave::app
