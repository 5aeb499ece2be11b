#include "conclave/server/app/snapshot_command.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "conclave/base/check.h"
#include "conclave/base/status.h"
#include "conclave/client/maintenance.h"
#include "conclave/server/app/flags.h"
#include "conclave/server/app/log.h"
#include "conclave/server/app/snapshot_file.h"
#include "conclave/server/app/version.h"
#include "conclave/server/backup/restore.h"
#include "conclave/server/node/bootstrap.h"
#include "conclave/server/posix/disk.h"

namespace conclave::app {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitBadArguments = 2;

// Far more than any cluster writes between a snapshot and its loss.
constexpr uint64_t kBumpDefault = 1'000'000'000;
// Beside the data directory while it is made; it gets its name when it is complete.
constexpr char kUnfinishedSuffix[] = ".restoring";

constexpr char kUsage[] = R"(usage:
  conclave snapshot save FILE [--endpoints HOST:PORT] [flags]
      Saves what one member has (of 127.0.0.1:2379).
        --cacert FILE        speak TLS; the authorities that the member's certificate comes from
        --cert, --key FILE   certificate to show, and its private key
        --insecure-skip-tls-verify
                             speak TLS with whoever answers
        --user USER[:PASSWORD], --password PASSWORD
                             who asks, where users are looked at: root, or one with its role
      Each of these may come from the environment instead: ETCDCTL_ENDPOINTS, ETCDCTL_CACERT, ...
  conclave snapshot status FILE [-w simple|table|json]
      Shows hash, revision, number of pairs and size of a snapshot.
  conclave snapshot restore FILE --data-dir DIR [flags]
      Makes the data directory of a new cluster's member out of a snapshot. Each member is made of
      the same file with the same flags, but for --name, --data-dir and
      --initial-advertise-peer-urls.
        --name, --initial-cluster, --initial-cluster-token, --initial-advertise-peer-urls
                             as for the server, which is to be started with the same
        --skip-hash-check    also takes a database file that was copied from a member's disk
        --bump-revision N    raises the revision by N (1000000000), so that no revision that a
                             client may have seen comes again; 0 leaves it
        --mark-compacted[=B] counts everything up to that revision as compacted, so that watchers
                             hear of it (true where the revision is raised)
)";

struct Arguments {
  std::string verb;
  std::string file;
  std::string write_out = "simple";
  // Of save: as etcdctl's.
  std::string endpoint = "127.0.0.1:2379";
  TlsOptions tls;
  std::string user;  // or "user:password"
  std::string password;
  std::string save_flag;  // one that only save knows, if there was any

  bool skip_hash_check = false;
  uint64_t bump_revision = kBumpDefault;
  std::optional<bool> mark_compacted;
  std::vector<std::string> server_flags;  // those that the server has as well
};

// "--name=value" or "--name", without its dashes; empty if it is no flag.
struct Token {
  std::string name;
  std::optional<std::string> value;
};
Token Parse(const std::string& text) {
  if (text.size() < 2 || text[0] != '-') return {};
  const std::string flag = text.substr(text[1] == '-' ? 2 : 1);
  const size_t equals = flag.find('=');
  if (equals == std::string::npos) return {flag, std::nullopt};
  return {flag.substr(0, equals), flag.substr(equals + 1)};
}

absl::Status BadArguments(std::string_view what) {
  return absl::InvalidArgumentError(std::string(what));
}

absl::StatusOr<bool> ParseSwitch(const Token& flag) {
  if (!flag.value.has_value() || *flag.value == "true") return true;
  if (*flag.value == "false") return false;
  return BadArguments(absl::StrCat("--", flag.name, " is true or false"));
}

// Where a flag of save's puts its value; null: it is none.
std::string* SaveField(std::string_view name, Arguments* arguments) {
  if (name == "endpoints") return &arguments->endpoint;
  if (name == "cacert") return &arguments->tls.ca_file;
  if (name == "cert") return &arguments->tls.cert_file;
  if (name == "key") return &arguments->tls.key_file;
  if (name == "user") return &arguments->user;
  if (name == "password") return &arguments->password;
  return nullptr;
}

absl::Status TakeFlag(const Token& flag, std::string value, Arguments* arguments) {
  if (std::string* field = SaveField(flag.name, arguments); field != nullptr) {
    *field = std::move(value);
    arguments->save_flag = flag.name;
    return absl::OkStatus();
  }
  if (flag.name == "w" || flag.name == "write-out") {
    if (value != "simple" && value != "table" && value != "json") {
      return BadArguments("--write-out is simple, table or json");
    }
    arguments->write_out = std::move(value);
  } else if (flag.name == "bump-revision") {
    if (!absl::SimpleAtoi(value, &arguments->bump_revision)) {
      return BadArguments("--bump-revision is a number, 1000000000 say");
    }
  } else {
    arguments->server_flags.push_back("--" + flag.name);
    arguments->server_flags.push_back(std::move(value));
  }
  return absl::OkStatus();
}

// etcdctl's variables; a flag beats its own.
void TakeEnvironment(Arguments* arguments) {
  for (const char* name : {"ENDPOINTS", "CACERT", "CERT", "KEY", "USER", "PASSWORD"}) {
    const char* value = std::getenv(absl::StrCat("ETCDCTL_", name).c_str());
    if (value == nullptr || *value == '\0') continue;
    *SaveField(absl::AsciiStrToLower(name), arguments) = value;
  }
}

absl::StatusOr<Arguments> ParseArguments(std::span<const std::string> texts) {
  Arguments arguments;
  TakeEnvironment(&arguments);
  if (texts.empty()) return BadArguments("a command is missing: save, status or restore");
  arguments.verb = texts[0];
  if (arguments.verb != "save" && arguments.verb != "status" && arguments.verb != "restore") {
    return BadArguments(
        absl::StrCat("unknown command ", arguments.verb, ": save, status or restore"));
  }
  for (size_t i = 1; i < texts.size(); ++i) {
    const Token flag = Parse(texts[i]);
    if (flag.name.empty()) {
      if (!arguments.file.empty()) return BadArguments("more than one file");
      arguments.file = texts[i];
    } else if (flag.name == "skip-hash-check") {
      CONCLAVE_ASSIGN_OR_RETURN(arguments.skip_hash_check, ParseSwitch(flag));
    } else if (flag.name == "mark-compacted") {
      CONCLAVE_ASSIGN_OR_RETURN(arguments.mark_compacted, ParseSwitch(flag));
    } else if (flag.name == "insecure-skip-tls-verify") {
      CONCLAVE_ASSIGN_OR_RETURN(arguments.tls.insecure_skip_verify, ParseSwitch(flag));
      arguments.save_flag = flag.name;
    } else if (flag.value.has_value()) {
      CONCLAVE_RETURN_IF_ERROR(TakeFlag(flag, *flag.value, &arguments));
    } else if (i + 1 == texts.size()) {
      return BadArguments(absl::StrCat("--", flag.name, " needs a value"));
    } else {
      CONCLAVE_RETURN_IF_ERROR(TakeFlag(flag, texts[++i], &arguments));
    }
  }
  if (arguments.file.empty()) return BadArguments("the name of a file is missing");
  return arguments;
}

absl::Status NoServerFlags(const Arguments& arguments) {
  if (arguments.server_flags.empty()) return absl::OkStatus();
  return BadArguments(
      absl::StrCat(arguments.verb, " does not know ", arguments.server_flags.front()));
}

absl::Status NoSaveFlags(const Arguments& arguments) {
  if (arguments.save_flag.empty()) return absl::OkStatus();
  return BadArguments(absl::StrCat(arguments.verb, " does not know --", arguments.save_flag));
}

// ---- save ----

absl::Status Save(const Arguments& arguments) {
  CONCLAVE_RETURN_IF_ERROR(NoServerFlags(arguments));
  if (arguments.endpoint.find(',') != std::string::npos) {
    return BadArguments("snapshot must be requested to one selected node, not multiple");
  }
  const TlsOptions& tls = arguments.tls;
  if (tls.cert_file.empty() != tls.key_file.empty()) {
    return BadArguments("--cert and --key belong together: give both");
  }
  ConnectOptions connect{.endpoints = {arguments.endpoint}};
  if (!tls.ca_file.empty() || !tls.cert_file.empty() || tls.insecure_skip_verify) connect.tls = tls;
  connect.user = arguments.user;
  connect.password = arguments.password;
  if (const size_t colon = arguments.user.find(':');
      arguments.password.empty() && colon != std::string::npos) {
    connect.user = arguments.user.substr(0, colon);
    connect.password = arguments.user.substr(colon + 1);
  }
  if (!connect.user.empty() && connect.password.empty()) {
    return BadArguments("a password is missing: --user USER:PASSWORD, or --password");
  }
  CONCLAVE_ASSIGN_OR_RETURN(const Client client, Client::Connect(std::move(connect)));
  const absl::StatusOr<SnapshotSaved> saved =
      Maintenance(client).SaveSnapshot(client.endpoints().front(), arguments.file);
  // What the member refuses, a password say, is no mistake in how the command was written.
  if (absl::IsInvalidArgument(saved.status())) {
    return absl::FailedPreconditionError(saved.status().message());
  }
  CONCLAVE_RETURN_IF_ERROR(saved.status());
  std::cout << "Snapshot saved at " << arguments.file << "\n";
  if (!saved->version.empty()) std::cout << "Server version " << saved->version << "\n";
  return absl::OkStatus();
}

// ---- status ----

// "2.1 MB": as etcd's tools say it.
std::string HumanSize(uint64_t bytes) {
  if (bytes < 10) return absl::StrCat(bytes, " B");
  constexpr std::array<const char*, 7> kUnits = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  size_t unit = 0;
  double size = static_cast<double>(bytes);
  while (size >= 1000 && unit + 1 < kUnits.size()) {
    size /= 1000;
    ++unit;
  }
  size = std::floor(size * 10 + 0.5) / 10;
  return absl::StrFormat("%.*f %s", size < 10 ? 1 : 0, size, kUnits[unit]);
}

void PrintTable(const std::vector<std::pair<std::string, std::string>>& columns) {
  std::string line = "+";
  std::string head = "|";
  std::string row = "|";
  for (const auto& [name, value] : columns) {
    const size_t width = std::max(name.size(), value.size());
    const size_t left = (width - name.size()) / 2;
    absl::StrAppend(&line, std::string(width + 2, '-'), "+");
    absl::StrAppend(&head, " ", std::string(left, ' '), name,
                    std::string(width - name.size() - left, ' '), " |");
    absl::StrAppend(&row, " ", std::string(width - value.size(), ' '), value, " |");
  }
  std::cout << line << "\n" << head << "\n" << line << "\n" << row << "\n" << line << "\n";
}

absl::Status Status(const Arguments& arguments) {
  CONCLAVE_RETURN_IF_ERROR(NoServerFlags(arguments));
  CONCLAVE_RETURN_IF_ERROR(NoSaveFlags(arguments));
  CONCLAVE_ASSIGN_OR_RETURN(const auto file, SnapshotFile::Open(arguments.file));
  CONCLAVE_ASSIGN_OR_RETURN(bbolt::Database database, bbolt::Database::Open(file.get()));
  CONCLAVE_ASSIGN_OR_RETURN(const backup::DatabaseStatus status, backup::Inspect(&database));
  if (arguments.write_out == "json") {
    nlohmann::ordered_json json;
    json["hash"] = status.hash;
    json["revision"] = status.revision;
    json["totalKey"] = status.total_keys;
    json["totalSize"] = status.total_bytes;
    json["version"] = status.version;
    std::cout << json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace)
              << "\n";
    return absl::OkStatus();
  }
  std::vector<std::pair<std::string, std::string>> columns = {
      {"HASH", absl::StrCat(absl::Hex(status.hash))},
      {"REVISION", absl::StrCat(status.revision)},
      {"TOTAL KEYS", absl::StrCat(status.total_keys)},
      {"TOTAL SIZE", HumanSize(status.total_bytes)}};
  // Files of before 3.6 do not know it, nor do the tools of that time.
  if (!status.version.empty()) columns.emplace_back("STORAGE VERSION", status.version);
  if (arguments.write_out == "table") {
    PrintTable(columns);
    return absl::OkStatus();
  }
  for (const auto& column : columns) {
    std::cout << (&column == &columns.front() ? "" : ", ") << column.second;
  }
  std::cout << "\n";
  return absl::OkStatus();
}

// ---- restore ----

absl::StatusOr<backup::RestoreOptions> RevisionOptions(const Arguments& arguments) {
  backup::RestoreOptions options;
  options.bump_revision = arguments.bump_revision;
  options.mark_compacted = arguments.mark_compacted.value_or(options.bump_revision > 0);
  if (options.bump_revision > 0 && !options.mark_compacted) {
    return BadArguments("--mark-compacted required if --bump-revision");
  }
  if (options.bump_revision == 0 && options.mark_compacted) {
    return BadArguments("--mark-compacted requires --bump-revision");
  }
  return options;
}

absl::StatusOr<apply::StateParts> ReadFile(const Arguments& arguments,
                                           const backup::RestoreOptions& options) {
  CONCLAVE_ASSIGN_OR_RETURN(const auto file, SnapshotFile::Open(arguments.file));
  if (!arguments.skip_hash_check) CONCLAVE_RETURN_IF_ERROR(file->CheckHash());
  CONCLAVE_ASSIGN_OR_RETURN(bbolt::Database database, bbolt::Database::Open(file.get()));
  return backup::ReadState(&database, options);
}

absl::StatusOr<node::InitialCluster> Founders(const Config& config) {
  std::vector<node::FoundingMember> founders;
  for (const auto& [name, urls] : config.initial_cluster) {
    node::FoundingMember& founder = founders.emplace_back();
    founder.name = name;
    for (const Url& url : urls) founder.peer_urls.push_back(url.Text());
  }
  return node::FoundCluster(founders, config.initial_cluster_token);
}

// Makes a directory under the name of `unfinished`, which shows if it was not completed.
absl::Status MakeDirectory(const std::filesystem::path& unfinished,
                           const std::filesystem::path& target,
                           absl::FunctionRef<absl::Status(env::Disk&)> fill) {
  std::error_code error;
  absl::Status filled;
  {
    CONCLAVE_ASSIGN_OR_RETURN(const auto disk, posix::OpenDisk(unfinished.string()));
    filled = fill(*disk);
  }
  if (filled.ok()) {
    std::filesystem::rename(unfinished, target, error);
    if (!error) return absl::OkStatus();
    filled = absl::UnavailableError(
        absl::StrCat("cannot rename ", unfinished.string(), ": ", error.message()));
  }
  std::filesystem::remove_all(unfinished, error);
  return filled;
}

absl::Status Restore(const Arguments& arguments) {
  CONCLAVE_RETURN_IF_ERROR(NoSaveFlags(arguments));
  CONCLAVE_ASSIGN_OR_RETURN(const backup::RestoreOptions options, RevisionOptions(arguments));
  CONCLAVE_ASSIGN_OR_RETURN(const CommandLine line, ParseCommandLine(arguments.server_flags, {}));
  const Config& config = line.config;
  CONCLAVE_RETURN_IF_ERROR(CheckInitialCluster(config));
  CONCLAVE_ASSIGN_OR_RETURN(const auto log, Log::Open({.outputs = {"stderr"}}));

  const std::filesystem::path target(config.data_dir);
  const std::filesystem::path unfinished(config.data_dir + kUnfinishedSuffix);
  std::error_code error;
  if (std::filesystem::exists(target, error) && !std::filesystem::is_empty(target, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat("data-dir \"", config.data_dir, "\" not empty or could not be read"));
  }
  if (std::filesystem::exists(unfinished, error)) {
    return absl::FailedPreconditionError(
        absl::StrCat(unfinished.string(), " is left of a restore that did not end; remove it"));
  }

  CONCLAVE_ASSIGN_OR_RETURN(const node::InitialCluster cluster, Founders(config));
  const node::InitialCluster::Member* const self = cluster.Find(config.name);
  CONCLAVE_CHECK(self != nullptr, "it was checked");
  node::Options member;
  member.id = self->id;
  member.cluster_id = cluster.cluster_id;
  member.name = config.name;
  member.version = std::string(kProtocolVersion);
  log->Info("restoring snapshot", {{"path", arguments.file}, {"data-dir", config.data_dir}});
  CONCLAVE_ASSIGN_OR_RETURN(apply::StateParts parts, ReadFile(arguments, options));
  const std::string revision = absl::StrCat(parts.store->current_revision());
  CONCLAVE_RETURN_IF_ERROR(MakeDirectory(unfinished, target, [&](env::Disk& disk) {
    return node::FoundMember(disk, member, cluster, std::move(parts),
                             {.segment_bytes = config.log_segment_bytes});
  }));
  for (const node::InitialCluster::Member& founder : cluster.members) {
    log->Info("added member", {{"cluster-id", absl::StrCat(absl::Hex(cluster.cluster_id))},
                               {"added-peer-id", absl::StrCat(absl::Hex(founder.id.value()))},
                               {"added-peer-name", founder.name}});
  }
  log->Info("restored snapshot",
            {{"path", arguments.file}, {"data-dir", config.data_dir}, {"revision", revision}});
  return absl::OkStatus();
}

}  // namespace

int RunSnapshotCommand(std::span<const std::string> arguments) {
  const auto asks_for_help = [](const std::string& text) {
    return text == "-h" || text == "-help" || text == "--help";
  };
  if (std::any_of(arguments.begin(), arguments.end(), asks_for_help)) {
    std::cout << kUsage;
    return 0;
  }
  const absl::StatusOr<Arguments> parsed = ParseArguments(arguments);
  absl::Status done = parsed.status();
  if (done.ok()) {
    done = parsed->verb == "save"     ? Save(*parsed)
           : parsed->verb == "status" ? Status(*parsed)
                                      : Restore(*parsed);
  }
  if (done.ok()) return 0;
  std::cerr << "Error: " << done.message() << std::endl;
  if (!absl::IsInvalidArgument(done)) return kExitFailed;
  if (!parsed.ok()) std::cerr << kUsage;
  return kExitBadArguments;
}

}  // namespace conclave::app
