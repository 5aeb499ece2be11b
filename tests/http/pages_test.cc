// The HTTP pages against a server that is as healthy as each test says.
#include "conclave/server/http/pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace conclave::http {
namespace {

using testing::HasSubstr;
using testing::Pair;
using testing::UnorderedElementsAre;

class ScriptedBackend : public Backend {
 public:
  void Call(node::Method method, std::string request,
            std::function<void(node::Reply)> done) override {
    EXPECT_EQ(method, node::Method::kRange);
    const bool is_serializable = request.find("\x38\x01") != std::string::npos;
    ++(is_serializable ? serializable_reads : linearizable_reads);
    node::Reply reply;
    if (!is_serializable && !read_error.empty()) {
      reply.error = std::make_unique<node::CallError>(node::CallError{14, read_error});
    }
    done(std::move(reply));
  }
  std::shared_ptr<local::Call> Open(local::CallOptions /*options*/,
                                    std::shared_ptr<local::Listener> /*listener*/) override {
    ADD_FAILURE() << "a page makes no calls in a client's name";
    return nullptr;
  }
  void GetStats(std::function<void(std::shared_ptr<const node::Stats>)> done) override {
    done(std::make_shared<node::Stats>(stats));
  }
  std::string RenderMetrics(const node::Stats& /*stats*/) override { return "metric 1\n"; }
  std::optional<std::vector<std::string>> command_line() const override { return arguments; }
  std::string version() const override { return "3.6.0"; }

  std::optional<std::vector<std::string>> arguments;
  node::Stats stats;
  std::string read_error;
  int serializable_reads = 0;
  int linearizable_reads = 0;
};

class PagesTest : public testing::Test {
 protected:
  PagesTest() { backend_.stats.has_leader = true; }
  Response Get(const std::string& target, const std::string& method = "GET") {
    Response response;
    int answers = 0;
    Answer({method, target}, &backend_, [&](Response given) {
      response = std::move(given);
      ++answers;
    });
    EXPECT_EQ(answers, 1) << target;
    return response;
  }
  ScriptedBackend backend_;
};

TEST_F(PagesTest, HealthReadsThroughTheQuorum) {
  const Response response = Get("/health");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, R"({"health":"true","reason":""})");
  EXPECT_EQ(backend_.linearizable_reads, 1);
}

TEST_F(PagesTest, HealthNamesTheFirstReasonOnly) {
  backend_.read_error = "etcdserver: leader changed";
  EXPECT_EQ(Get("/health").body,
            R"({"health":"false","reason":"RANGE ERROR:etcdserver: leader changed"})");
  backend_.stats.has_leader = false;
  EXPECT_EQ(Get("/health").body, R"({"health":"false","reason":"RAFT NO LEADER"})");
  backend_.stats.alarms.push_back({raft::NodeId(1), 1});
  const Response response = Get("/health");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.body, R"({"health":"false","reason":"ALARM NOSPACE"})");
}

TEST_F(PagesTest, ASerializableHealthNeedsNoLeader) {
  backend_.stats.has_leader = false;
  backend_.read_error = "etcdserver: no leader";
  EXPECT_EQ(Get("/health?serializable=true").status, 200);
  EXPECT_EQ(backend_.serializable_reads, 1);
  EXPECT_EQ(backend_.linearizable_reads, 0);
}

TEST_F(PagesTest, AnAlarmCanBeLeftOut) {
  backend_.stats.alarms = {{raft::NodeId(1), 1}, {raft::NodeId(1), 2}};
  EXPECT_EQ(Get("/health?exclude=NOSPACE").body, R"({"health":"false","reason":"ALARM CORRUPT"})");
  EXPECT_EQ(Get("/health?exclude=NOSPACE&exclude=CORRUPT").status, 200);
}

TEST_F(PagesTest, ReadyzRunsAllChecksAndListsThemWhenAsked) {
  EXPECT_EQ(Get("/readyz").body, "ok\n");
  EXPECT_EQ(Get("/readyz?verbose").body,
            "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n"
            "[+]non_learner ok\nok\n");
  backend_.read_error = "etcdserver: leader changed";
  backend_.stats.is_learner = true;
  const Response response = Get("/readyz");
  EXPECT_EQ(response.status, 503);
  EXPECT_THAT(response.body,
              HasSubstr("[-]linearizable_read failed: etcdserver: leader changed\n"));
  EXPECT_THAT(response.body, HasSubstr("[-]non_learner failed"));
  EXPECT_EQ(Get("/readyz?exclude=linearizable_read&exclude=non_learner").status, 200);
  EXPECT_EQ(Get("/readyz/data_corruption").status, 200);
  EXPECT_EQ(Get("/livez").status, 200);
}

TEST_F(PagesTest, AFullDiskDoesNotMakeItUnready) {
  backend_.stats.alarms = {{raft::NodeId(1), 1}};
  EXPECT_EQ(Get("/readyz").status, 200);
  backend_.stats.alarms = {{raft::NodeId(1), 2}};
  EXPECT_THAT(Get("/readyz").body,
              HasSubstr("[-]data_corruption failed: alarm activated: CORRUPT"));
}

TEST_F(PagesTest, VersionSaysWhatIsNotDecidedYet) {
  EXPECT_EQ(Get("/version").body,
            R"({"etcdserver":"3.6.0","etcdcluster":"not_decided","storage":"unknown"})");
  backend_.stats.cluster_version = "3.6.0";
  EXPECT_EQ(Get("/version").body,
            R"({"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"})");
}

TEST_F(PagesTest, VariablesTellWhereRaftStands) {
  backend_.stats.member = raft::NodeId(0xab);
  backend_.stats.is_leader = true;
  const Response response = Get("/debug/vars");
  EXPECT_EQ(response.content_type, "application/json; charset=utf-8");
  EXPECT_THAT(response.body, HasSubstr(R"("id":"ab")"));
  EXPECT_THAT(response.body, HasSubstr(R"("raftState":"StateLeader")"));
  EXPECT_EQ(Get("/debug/vars", "POST").status, 405);
}

TEST_F(PagesTest, TheProfilersPagesAreThereWhenTheyAreOn) {
  for (const char* path : {"/debug/pprof", "/debug/pprof/", "/debug/pprof/cmdline"}) {
    EXPECT_EQ(Get(path).status, 404) << path;
  }
  backend_.arguments = {"conclave", "--enable-pprof"};
  for (const char* index : {"/debug/pprof", "/debug/pprof/"}) {
    EXPECT_EQ(Get(index).status, 200);
    EXPECT_THAT(Get(index).body, HasSubstr("cmdline"));
    EXPECT_THAT(Get(index).body, HasSubstr("perf record"));
  }
  EXPECT_EQ(Get("/debug/pprof/cmdline").body, std::string("conclave\0--enable-pprof", 23));
  EXPECT_EQ(Get("/debug/pprof/cmdline", "POST").status, 200) << "as Go's";
  for (const char* of_go : {"profile?seconds=1", "heap", "goroutine?debug=1", "trace"}) {
    const Response response = Get(std::string("/debug/pprof/") + of_go);
    EXPECT_EQ(response.status, 501) << of_go;
    EXPECT_THAT(response.body, HasSubstr("perf record"));
  }
  EXPECT_EQ(Get("/debug/pprof/nosuch").status, 404);
  EXPECT_EQ(Get("/debug/pprofiler").status, 404);
}

TEST_F(PagesTest, OtherPathsAndMethodsAreToldSo) {
  EXPECT_EQ(Get("/").status, 404);
  EXPECT_EQ(Get("/healthy").status, 404);
  EXPECT_EQ(Get("/livez/linearizable_read").status, 404);
  EXPECT_EQ(Get("/nothing", "POST").status, 404);
  const Response response = Get("/metrics", "DELETE");
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.allow, "GET");
  EXPECT_EQ(Get("/metrics?x=1").body, "metric 1\n");
}

TEST(ParseQueryTest, UndoesPercentEncodingAndKeepsRepeats) {
  EXPECT_THAT(ParseQuery("a=1&b=%2fx+y&a=2&flag&&=z&bad=%zz"),
              UnorderedElementsAre(Pair("a", "1"), Pair("b", "/x y"), Pair("a", "2"),
                                   Pair("flag", ""), Pair("", "z"), Pair("bad", "%zz")));
  EXPECT_TRUE(ParseQuery("").empty());
}

}  // namespace
}  // namespace conclave::http
