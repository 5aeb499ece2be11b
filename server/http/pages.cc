#include "conclave/server/http/pages.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace conclave::http {
namespace {

constexpr char kJson[] = "application/json; charset=utf-8";
constexpr int kNoSpace = 1;  // etcdserverpb.AlarmType
constexpr int kCorrupt = 2;

// etcdserverpb.RangeRequest of the key "health", which need not exist.
std::string HealthRange(bool serializable) {
  std::string request("\x0a\x06health", 8);
  if (serializable) request.append("\x38\x01", 2);
  return request;
}

Response Health(bool healthy, std::string_view reason) {
  Response response;
  response.status = healthy ? 200 : 503;
  response.content_type = kJson;
  response.body = absl::StrCat("{\"health\":\"", healthy ? "true" : "false", "\",\"reason\":\"",
                               std::string(reason), "\"}");
  return response;
}

bool Excluded(const std::multimap<std::string, std::string>& query, const std::string& name) {
  const auto [begin, end] = query.equal_range("exclude");
  return std::any_of(begin, end, [&](const auto& entry) { return entry.second == name; });
}

// Alarms, then the leader, then a read through the quorum: the first that fails is the reason.
void AnswerHealth(const std::multimap<std::string, std::string>& query, Backend* backend,
                  std::function<void(Response)> done) {
  backend->GetStats([query, backend, done = std::move(done)](auto stats) {
    if (stats->HasAlarm(kNoSpace) && !Excluded(query, "NOSPACE")) {
      return done(Health(false, "ALARM NOSPACE"));
    }
    if (stats->HasAlarm(kCorrupt) && !Excluded(query, "CORRUPT")) {
      return done(Health(false, "ALARM CORRUPT"));
    }
    const auto found = query.find("serializable");
    const bool serializable = found != query.end() && found->second == "true";
    if (!serializable && !stats->has_leader) {
      return done(Health(false, stats->awaits_repair
                                    ? "RAFT NO LEADER; THE LOG OF THIS MEMBER IS DAMAGED AND "
                                      "WAITS FOR A LEADER TO REPAIR IT"
                                    : "RAFT NO LEADER"));
    }
    backend->Call(node::Method::kRange, HealthRange(serializable), [done](node::Reply reply) {
      if (reply.error == nullptr) return done(Health(true, ""));
      done(Health(false, absl::StrCat("RANGE ERROR:", reply.error->message)));
    });
  });
}

// What /livez and /readyz check, one after the other.
struct CheckRun {
  std::vector<std::string> names;
  std::multimap<std::string, std::string> query;
  Backend* backend = nullptr;
  std::shared_ptr<const node::Stats> stats;
  std::function<void(Response)> done;
  size_t next = 0;
  bool failed = false;
  std::string lines;

  void Report(const std::string& name, const std::string& error) {
    if (error.empty()) {
      absl::StrAppend(&lines, "[+]", name, " ok\n");
    } else {
      absl::StrAppend(&lines, "[-]", name, " failed: ", error, "\n");
      failed = true;
    }
  }
};

void RunChecks(const std::shared_ptr<CheckRun>& run) {
  while (run->next < run->names.size()) {
    const std::string name = run->names[run->next++];
    if (Excluded(run->query, name)) continue;
    if (name == "data_corruption") {
      run->Report(name, run->stats->HasAlarm(kCorrupt) ? "alarm activated: CORRUPT" : "");
    } else if (name == "non_learner") {
      run->Report(name, run->stats->is_learner ? "local member is a learner" : "");
    } else {
      run->backend->Call(node::Method::kRange, HealthRange(name == "serializable_read"),
                         [run, name](node::Reply reply) {
                           run->Report(name, reply.error == nullptr ? "" : reply.error->message);
                           RunChecks(run);
                         });
      return;
    }
  }
  Response response;
  response.status = run->failed ? 503 : 200;
  if (run->failed || run->query.contains("verbose")) response.body = run->lines;
  if (!run->failed) response.body += "ok\n";
  run->done(std::move(response));
}

void AnswerChecks(std::vector<std::string> names, std::multimap<std::string, std::string> query,
                  Backend* backend, std::function<void(Response)> done) {
  auto run = std::make_shared<CheckRun>();
  run->names = std::move(names);
  run->query = std::move(query);
  run->backend = backend;
  run->done = std::move(done);
  backend->GetStats([run](auto stats) {
    run->stats = std::move(stats);
    RunChecks(run);
  });
}

void AnswerVersion(Backend* backend, std::function<void(Response)> done) {
  backend->GetStats([backend, done = std::move(done)](auto stats) {
    const bool decided = !stats->cluster_version.empty();
    Response response;
    response.content_type = "application/json";
    response.body =
        absl::StrCat("{\"etcdserver\":\"", backend->version(), "\",\"etcdcluster\":\"",
                     decided ? stats->cluster_version : "not_decided", "\",\"storage\":\"",
                     decided ? stats->cluster_version : "unknown", "\"}");
    done(std::move(response));
  });
}

// What Go programs publish by its package expvar, as far as it means something here.
void AnswerVariables(Backend* backend, std::function<void(Response)> done) {
  backend->GetStats([done = std::move(done)](auto stats) {
    Response response;
    response.content_type = kJson;
    const char* const state = stats->is_learner  ? "StateLearner"
                              : stats->is_leader ? "StateLeader"
                                                 : "StateFollower";
    response.body =
        absl::StrCat("{\n\"raft.status\": {\"id\":\"", absl::Hex(stats->member.value()),
                     "\",\"term\":", stats->term.value(), ",\"commit\":", stats->commit.value(),
                     ",\"applied\":", stats->applied.value(), ",\"lead\":\"",
                     absl::Hex(stats->leader.value()), "\",\"raftState\":\"", state,
                     "\"},\n\"proposals_pending\": ", stats->proposals_pending, "\n}\n");
    done(std::move(response));
  });
}

// Of /debug/pprof/: what Go's runtime tells of itself. A program without that runtime has its
// command line; for the rest Linux has a profiler that needs nothing of the program.
void AnswerProfiler(std::string_view name, const std::vector<std::string>& command_line,
                    std::function<void(Response)> done) {
  constexpr std::string_view kOfGo[] = {"allocs",  "block",  "goroutine",    "heap", "mutex",
                                        "profile", "symbol", "threadcreate", "trace"};
  const std::string perf = absl::StrCat("  perf record --call-graph dwarf -p ", getpid(),
                                        " -- sleep 10 && perf report\n");
  Response response;
  if (name.empty()) {
    response.body = absl::StrCat(
        "/debug/pprof/\n\n  cmdline   the program and its arguments, each ended by a zero byte\n\n"
        "The profiles of Go's runtime do not exist in this server. Where its time goes is shown "
        "by\n\n",
        perf);
  } else if (name == "cmdline") {
    response.body = absl::StrJoin(command_line, std::string(1, '\0'));
  } else if (std::find(std::begin(kOfGo), std::end(kOfGo), name) != std::end(kOfGo)) {
    response.status = 501;
    response.body = absl::StrCat(
        "This is a profile of Go's runtime, which this server does not "
        "have. Use instead\n\n",
        perf);
  } else {
    response.status = 404;
    response.body = "Unknown profile\n";
  }
  done(std::move(response));
}

void AnswerMetrics(Backend* backend, std::function<void(Response)> done) {
  backend->GetStats([backend, done = std::move(done)](auto stats) {
    Response response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = backend->RenderMetrics(*stats);
    done(std::move(response));
  });
}

std::string PercentDecode(std::string_view text) {
  auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && digit(text[i + 1]) >= 0 &&
        digit(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

}  // namespace

std::multimap<std::string, std::string> ParseQuery(std::string_view query) {
  std::multimap<std::string, std::string> values;
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view part = query.substr(0, end);
    query.remove_prefix(std::min(end + 1, query.size()));
    if (part.empty()) continue;
    const size_t equals = part.find('=');
    values.emplace(PercentDecode(part.substr(0, equals)),
                   equals == std::string_view::npos ? "" : PercentDecode(part.substr(equals + 1)));
  }
  return values;
}

void Answer(const Request& request, Backend* backend, std::function<void(Response)> done) {
  const size_t question = request.target.find('?');
  const std::string path = request.target.substr(0, question);
  const auto query = question == std::string::npos
                         ? std::multimap<std::string, std::string>()
                         : ParseQuery(std::string_view(request.target).substr(question + 1));
  const bool is_check = path == "/livez" || path == "/readyz" || path.starts_with("/livez/") ||
                        path.starts_with("/readyz/");
  constexpr std::string_view kProfiler = "/debug/pprof";
  if (path == kProfiler || path.starts_with("/debug/pprof/")) {
    // Of any method, as in Go.
    if (const auto command_line = backend->command_line()) {
      const size_t name = std::min(kProfiler.size() + 1, path.size());
      return AnswerProfiler(std::string_view(path).substr(name), *command_line, std::move(done));
    }
  }
  if (!is_check && path != "/health" && path != "/version" && path != "/metrics" &&
      path != "/debug/vars") {
    return done({.status = 404, .body = "404 page not found\n"});
  }
  if (request.method != "GET") {
    return done({.status = 405, .body = "Method Not Allowed\n", .allow = "GET"});
  }
  if (path == "/health") return AnswerHealth(query, backend, std::move(done));
  if (path == "/version") return AnswerVersion(backend, std::move(done));
  if (path == "/metrics") return AnswerMetrics(backend, std::move(done));
  if (path == "/debug/vars") return AnswerVariables(backend, std::move(done));

  std::vector<std::string> names =
      path.starts_with("/livez") ? std::vector<std::string>{"serializable_read"}
                                 : std::vector<std::string>{"data_corruption", "serializable_read",
                                                            "linearizable_read", "non_learner"};
  if (const size_t slash = path.find('/', 1); slash != std::string::npos) {
    const std::string one = path.substr(slash + 1);
    if (std::find(names.begin(), names.end(), one) == names.end()) {
      return done({.status = 404, .body = "404 page not found\n"});
    }
    names = {one};
  }
  AnswerChecks(std::move(names), query, backend, std::move(done));
}

}  // namespace conclave::http
