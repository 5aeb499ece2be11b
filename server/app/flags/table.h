// The flags table: the one list of all flags, by group.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "conclave/server/app/flags/entry.h"

namespace conclave::app {

// Each in the file of its name.
FlagGroup MemberFlags();
FlagGroup ClusteringFlags();
FlagGroup LimitFlags();
FlagGroup CompactionFlags();
FlagGroup SecurityFlags();
FlagGroup AuthFlags();
FlagGroup HttpFlags();
FlagGroup LoggingFlags();
FlagGroup UpkeepFlags();
FlagGroup ConclaveFlags();

// In the order of --help.
std::span<const FlagGroup> FlagGroups();

// By its name or its experimental- one; null if there is none.
const FlagEntry* FindFlag(std::string_view name);
// The flag that was probably meant; null if nothing is near.
const FlagEntry* NearestFlag(std::string_view name);
// "data-dir" -> "ETCD_DATA_DIR"
std::string VariableOf(std::string_view flag);
// By its variable, of either name.
const FlagEntry* FindVariable(std::string_view variable);
// By its place in the config file; `section` is "" at the top.
const FlagEntry* FindFileKey(std::string_view section, std::string_view key);

bool IsFileSection(std::string_view section);

// Gives the flag its value. `source` names where that comes from: "--name" or "ETCD_NAME". What is
// ignored goes to *warnings. InvalidArgument: one line that names the source and what is wrong.
absl::Status ApplyFlag(const FlagEntry& flag, std::string_view source, std::string_view value,
                       Config* config, std::vector<std::string>* warnings);

std::string HelpText();
// The rows of docs/configuration.md.
std::string ManualText();

}  // namespace conclave::app
