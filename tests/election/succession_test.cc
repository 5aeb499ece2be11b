// Succession, step by step: whom a leader makes way for, and when.
#include "conclave/election/succession.h"

#include <optional>
#include <string>
#include <vector>

#include "conclave/tests/client/core/fake_transport.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(CandidateNoteTest, ReadsWhatItWritesAndRefusesTheRest) {
  const CandidateNote note{.id = "node-\"1\"", .priority = -3};
  EXPECT_EQ(ParseNote(EncodeNote(note)), note);
  EXPECT_EQ(EncodeNote({.id = "a", .priority = 10}), R"({"id":"a","prio":10})");
  EXPECT_EQ(ParseNote("{}"), CandidateNote());
  for (const char* bad : {"", "7", "[]", R"({"id":7})", R"({"prio":"high"})", R"({"prio":1.5})",
                          R"({"prio":9999999999})", "{\"id\":\"a\"", "\xff\xfe"}) {
    EXPECT_FALSE(ParseNote(bad).has_value()) << bad;
  }
  EXPECT_FALSE(ParseNote(R"({"id":")" + std::string(300, 'x') + "\"}").has_value());
  EXPECT_EQ(NoteKeyOf("e", "e/2a"), "e~candidate/2a");
  EXPECT_EQ(NoteKeyOf("e", "other/2a"), "");
}

// We lead by e/1, as "me" with priority 5.
class SuccessionTest : public testing::EngineFixture {
 protected:
  struct Key {
    std::string key;
    int64_t create;
    std::string value;
  };

  void Start(std::optional<Duration> settle) {
    succession_ = std::make_shared<Succession>(
        engine_, "e",
        Succession::Self{.key = "e/1", .note = {.id = "me", .priority = 5}, .settle = settle});
    succession_->Start(
        now_ + seconds(2),
        [this](std::optional<Succession::Heir> heir) {
          looked_ = true;
          at_once_ = std::move(heir);
        },
        [this](const Succession::Heir& heir) { later_ = heir; });
    engine_.Advance(now_);
  }
  void TearDown() override {
    if (succession_ != nullptr) succession_->Stop();
    EngineFixture::TearDown();
  }
  void Look(const std::vector<Key>& candidates, const std::vector<Key>& notes) {
    etcdserverpb::TxnResponse response;
    response.set_succeeded(true);
    response.mutable_header()->set_revision(100);
    for (const auto* keys : {&candidates, &notes}) {
      auto* range = response.add_responses()->mutable_response_range();
      for (const Key& key : *keys) Set(range->add_kvs(), key);
    }
    Answer(response);
  }
  static void Set(mvccpb::KeyValue* kv, const Key& key) {
    kv->set_key(key.key);
    kv->set_value(key.value);
    kv->set_create_revision(key.create);
    kv->set_mod_revision(key.create);
  }
  void Created() {
    for (int64_t id : {0, 1}) {
      etcdserverpb::WatchResponse response;
      response.set_created(true);
      response.set_watch_id(id);
      Say(response);
    }
  }
  // On the watch of candidates (0) or of notes (1).
  void Event(int64_t watch, const Key& key, bool deleted = false) {
    etcdserverpb::WatchResponse response;
    response.set_watch_id(watch);
    mvccpb::Event& event = *response.add_events();
    event.set_type(deleted ? mvccpb::Event::DELETE : mvccpb::Event::PUT);
    Set(event.mutable_kv(), key);
    Say(response);
  }

  std::shared_ptr<Succession> succession_;
  bool looked_ = false;
  std::optional<Succession::Heir> at_once_, later_;
};

TEST_F(SuccessionTest, MakesWayAtOnceForAMarkThatWasThereBefore) {
  Start(std::nullopt);
  Look({{"e/1", 5, ""}, {"e/2", 6, ""}},
       {{"e~candidate/2", 6, R"({"id":"b","prio":0})"}, {"e~next", 7, "b"}});
  ASSERT_TRUE(at_once_.has_value());
  EXPECT_EQ(at_once_->key, "e/2");
  EXPECT_TRUE(wire_.streams.empty());
}

TEST_F(SuccessionTest, AMarkForSomebodyWhoDoesNotQueueChangesNothing) {
  Start(std::nullopt);
  Look({{"e/1", 5, ""}, {"e/2", 6, ""}},
       {{"e~candidate/2", 6, R"({"id":"b","prio":0})"}, {"e~next", 7, "c"}});
  EXPECT_TRUE(looked_);
  EXPECT_FALSE(at_once_.has_value());
  Created();
  Event(0, {"e/3", 101, ""});
  EXPECT_FALSE(later_.has_value());  // it may be anybody
  Event(1, {"e~candidate/3", 101, R"({"id":"c"})"});
  ASSERT_TRUE(later_.has_value());
  EXPECT_EQ(later_->key, "e/3");
}

TEST_F(SuccessionTest, AMarkForUsIsRemoved) {
  Start(std::nullopt);
  Look({{"e/1", 5, ""}}, {{"e~next", 7, "me"}});
  EXPECT_FALSE(at_once_.has_value());
  etcdserverpb::TxnRequest txn;
  ASSERT_TRUE(txn.ParseFromString(LastCall().request));
  EXPECT_EQ(txn.success(0).request_delete_range().key(), "e~next");
  EXPECT_EQ(txn.compare(0).value(), "me");
}

TEST_F(SuccessionTest, AHigherPriorityMustHaveSettled) {
  Start(milliseconds(500));
  Look({{"e/1", 5, ""}, {"e/2", 6, ""}}, {{"e~candidate/2", 6, R"({"id":"b","prio":9})"}});
  EXPECT_FALSE(at_once_.has_value());
  Created();
  Go(milliseconds(499));
  EXPECT_FALSE(later_.has_value());
  Go(milliseconds(1));
  ASSERT_TRUE(later_.has_value());
  EXPECT_EQ(later_->id, "b");
}

TEST_F(SuccessionTest, OneThatComesAndGoesDoesNotSettle) {
  Start(milliseconds(500));
  Look({{"e/1", 5, ""}}, {});
  Created();
  Event(0, {"e/2", 101, ""});
  Event(1, {"e~candidate/2", 101, R"({"id":"b","prio":9})"});
  Go(milliseconds(300));
  Event(0, {"e/2", 0, ""}, true);
  Event(0, {"e/2", 103, ""});  // the same lease, but a new place in the queue
  Go(milliseconds(300));
  EXPECT_FALSE(later_.has_value());
  Go(milliseconds(200));
  EXPECT_TRUE(later_.has_value());
}

TEST_F(SuccessionTest, PrioritiesDoNotCountUnlessAskedForAndNeitherDoEqualOnes) {
  Start(std::nullopt);
  Look({{"e/1", 5, ""}, {"e/2", 6, ""}}, {{"e~candidate/2", 6, R"({"id":"b","prio":9})"}});
  Created();
  Go(seconds(100));
  EXPECT_FALSE(later_.has_value());
  succession_->Stop();
  looked_ = false;
  Start(milliseconds(1));
  Look({{"e/1", 5, ""}, {"e/2", 6, ""}, {"e/go", 7, "no note"}},
       {{"e~candidate/2", 6, R"({"id":"b","prio":5})"}});
  Go(seconds(20));
  EXPECT_TRUE(looked_);
  EXPECT_FALSE(later_.has_value());
}

TEST_F(SuccessionTest, ALookThatFailsIsMadeUpForByTheWatches) {
  Start(std::nullopt);
  Go(seconds(3));
  FailCall(4, "deadline exceeded");
  EXPECT_TRUE(looked_);
  EXPECT_FALSE(at_once_.has_value());
  // Both watches begin with a list.
  EXPECT_EQ(LastCall().method, "/etcdserverpb.KV/Range");
}

}  // namespace
}  // namespace conclave
