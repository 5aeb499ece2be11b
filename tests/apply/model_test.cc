// The state machine against the naive model, over thousands of random requests that concern each
// other.
#include "conclave/tests/apply/model.h"

#include <gtest/gtest.h>

#include <string>

#include "conclave/base/prng.h"
#include "conclave/tests/apply/machine.h"
#include "conclave/tests/apply/request_generator.h"

namespace conclave::apply {
namespace {

class ModelTest : public testing::TestWithParam<uint64_t> {
 protected:
  ModelTest() : machine_(Options()) {}

  // Small enough that ranges are answered by tasks now and then.
  static StateMachineOptions Options() {
    StateMachineOptions options;
    options.immediate_range_max = 5;
    return options;
  }

  template <typename Request, typename Message>
  void ExpectSame(const Request& request, const Answer<Message>& ours,
                  ModelAnswer<Message> theirs) {
    SCOPED_TRACE(request.DebugString());
    ASSERT_EQ(ours.error, theirs.error == nullptr ? "" : theirs.error->message);
    if (!ours.ok()) return;
    pb::ResponseHeader* const header = theirs.message.mutable_header();
    header->set_cluster_id(Machine::kClusterId);
    header->set_member_id(Machine::kMemberId);
    header->set_raft_term(Machine::kTerm);
    ASSERT_EQ(ours.message.DebugString(), theirs.message.DebugString());
  }

  void Step() {
    generator_.set_revision(model_.revision());
    switch (generator_.prng().Below(24)) {
      case 0: {
        const int64_t lease = generator_.Lease();
        const wire::Error* const error = model_.Grant(lease);
        ASSERT_EQ(machine_.Grant(lease, 100).error, error == nullptr ? "" : error->message);
        break;
      }
      case 1: {
        if (!generator_.prng().Chance(1, 3)) break;
        const int64_t lease = generator_.Lease();
        const wire::Error* const error = model_.Revoke(lease);
        ASSERT_EQ(machine_.Revoke(lease).error, error == nullptr ? "" : error->message);
        break;
      }
      case 2: {
        const int64_t revision = generator_.Revision() - 3;
        const wire::Error* const error = model_.Compact(revision);
        ASSERT_EQ(machine_.Compact(revision).error, error == nullptr ? "" : error->message);
        break;
      }
      case 3: {
        const int64_t lease = generator_.Lease();
        const Answer<pb::LeaseTimeToLiveResponse> answer = machine_.TimeToLive(lease, true);
        const std::vector<std::string> keys(answer->keys().begin(), answer->keys().end());
        ASSERT_EQ(keys, model_.LeaseKeys(lease));
        break;
      }
      case 4:
      case 5:
      case 6:
      case 7: {
        const pb::PutRequest request = generator_.Put();
        ExpectSame(request, machine_.Put(request), model_.Put(request));
        break;
      }
      case 8:
      case 9: {
        const pb::DeleteRangeRequest request = generator_.DeleteRange();
        ExpectSame(request, machine_.Delete(request), model_.DeleteRange(request));
        break;
      }
      case 10:
      case 11:
      case 12:
      case 13:
      case 14: {
        const pb::TxnRequest request = generator_.Txn();
        ExpectSame(request, machine_.Txn(request), model_.Txn(request));
        break;
      }
      default: {
        const pb::RangeRequest request = generator_.Range();
        ExpectSame(request, machine_.Range(request), model_.Range(request));
      }
    }
    // Garbage goes at its own pace, and nobody can tell.
    machine_.state().CompactSlice(generator_.prng().Below(10));
  }

  Machine machine_;
  Model model_;
  RequestGenerator generator_{GetParam(), {}};
};

TEST_P(ModelTest, AnswersAsTheNaiveModel) {
  for (int i = 0; i < 4000 && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(testing::Message() << "seed " << GetParam() << " request " << i);
    Step();
    ASSERT_EQ(machine_.state().store().current_revision(), model_.revision());
    if (i % 200 == 0) machine_.state().CheckInvariants();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, ModelTest, testing::Range<uint64_t>(1, 13));

}  // namespace
}  // namespace conclave::apply
