// The state machine against a real etcd: the same random requests to both, the same answers field
// for field.
//
// What Debian's etcd 3.4 does otherwise because of its age is taken out of the comparison here, one
// by one, with the reason.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "conclave/api/rpc.grpc.pb.h"
#include "conclave/tests/apply/machine.h"
#include "conclave/tests/apply/request_generator.h"
#include "conclave/tests/support/test_cluster.h"

namespace conclave::apply {
namespace {

using conclave::testing::ServerKind;
using conclave::testing::TestCluster;

// Ids are not compared; and etcd counts terms of its own.
void Normalize(pb::ResponseHeader* header) {
  header->clear_cluster_id();
  header->clear_member_id();
  header->clear_raft_term();
}

// keys_only without a sort by value drops the lease since 3.7; 3.4 sends it.
void DropLeases(const pb::RangeRequest& request, pb::RangeResponse* response) {
  if (!request.keys_only()) return;
  for (mvccpb::KeyValue& kv : *response->mutable_kvs()) kv.clear_lease();
}

void DropLeases(const pb::TxnRequest& request, pb::TxnResponse* response) {
  const auto& ops = response->succeeded() ? request.success() : request.failure();
  for (int i = 0; i < std::min(ops.size(), response->responses_size()); ++i) {
    pb::ResponseOp* const op = response->mutable_responses(i);
    if (ops[i].has_request_range() && op->has_response_range()) {
      DropLeases(ops[i].request_range(), op->mutable_response_range());
    }
    if (ops[i].has_request_txn() && op->has_response_txn()) {
      DropLeases(ops[i].request_txn(), op->mutable_response_txn());
    }
  }
}

template <typename Request, typename Response>
void DropLeases(const Request&, Response*) {}

class DifferentialTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  void SetUp() override {
    const auto binary = conclave::testing::ServerBinary(ServerKind::kEtcd);
    if (!binary.ok()) GTEST_SKIP() << binary.status().message();
    auto started = TestCluster::Start(TestCluster::Options{.kind = ServerKind::kEtcd});
    ASSERT_TRUE(started.ok()) << started.status().message();
    etcd_ = *std::move(started);
    const auto channel =
        grpc::CreateChannel(etcd_->endpoint(0), grpc::InsecureChannelCredentials());
    kv_ = pb::KV::NewStub(channel);
    lease_ = pb::Lease::NewStub(channel);
  }

  template <typename Response, typename Request, typename Stub>
  void Compare(const Request& request, Answer<Response> ours, Stub* stub,
               grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*)) {
    SCOPED_TRACE(request.DebugString());
    grpc::ClientContext context;
    Response theirs;
    const grpc::Status status = (stub->*method)(&context, request, &theirs);
    ASSERT_EQ(static_cast<int>(ours.code), static_cast<int>(status.error_code()))
        << ours.error << " / " << status.error_message();
    ASSERT_EQ(ours.error, status.error_message());
    if (!ours.ok()) {
      ++refused_;
      return;
    }
    ++answered_;
    Normalize(ours.message.mutable_header());
    Normalize(theirs.mutable_header());
    DropLeases(request, &theirs);
    DropLeases(request, &ours.message);
    ASSERT_EQ(ours.message.DebugString(), theirs.DebugString());
  }

  void Step() {
    generator_.set_revision(machine_.state().store().current_revision());
    switch (generator_.prng().Below(24)) {
      case 0: {
        pb::LeaseGrantRequest request;
        request.set_id(generator_.Lease());
        request.set_ttl(generator_.prng().Chance(1, 20) ? int64_t{1} << 40 : 1000);
        Compare(request, machine_.Call<pb::LeaseGrantResponse>(wire::Method::kLeaseGrant, request),
                static_cast<pb::Lease::StubInterface*>(lease_.get()),
                &pb::Lease::StubInterface::LeaseGrant);
        break;
      }
      case 1: {
        if (generator_.prng().Chance(1, 2)) break;
        pb::LeaseRevokeRequest request;
        request.set_id(generator_.Lease());
        Compare(request,
                machine_.Call<pb::LeaseRevokeResponse>(wire::Method::kLeaseRevoke, request),
                static_cast<pb::Lease::StubInterface*>(lease_.get()),
                &pb::Lease::StubInterface::LeaseRevoke);
        break;
      }
      case 2: {
        pb::CompactionRequest request;
        request.set_revision(generator_.Revision() - 3);
        Compare(request, machine_.Call<pb::CompactionResponse>(wire::Method::kCompact, request),
                static_cast<pb::KV::StubInterface*>(kv_.get()), &pb::KV::StubInterface::Compact);
        break;
      }
      case 3:
        CompareLease();
        break;
      case 4:
      case 5:
      case 6:
      case 7: {
        const pb::PutRequest request = generator_.Put();
        Compare(request, machine_.Put(request), static_cast<pb::KV::StubInterface*>(kv_.get()),
                &pb::KV::StubInterface::Put);
        break;
      }
      case 8:
      case 9: {
        const pb::DeleteRangeRequest request = generator_.DeleteRange();
        Compare(request, machine_.Delete(request), static_cast<pb::KV::StubInterface*>(kv_.get()),
                &pb::KV::StubInterface::DeleteRange);
        break;
      }
      case 10:
      case 11:
      case 12:
      case 13:
      case 14: {
        const pb::TxnRequest request = generator_.Txn();
        Compare(request, machine_.Txn(request), static_cast<pb::KV::StubInterface*>(kv_.get()),
                &pb::KV::StubInterface::Txn);
        break;
      }
      default: {
        const pb::RangeRequest request = generator_.Range();
        Compare(request, machine_.Range(request), static_cast<pb::KV::StubInterface*>(kv_.get()),
                &pb::KV::StubInterface::Range);
      }
    }
  }

  // Time to live and keys of one lease; the seconds left depend on the moment.
  void CompareLease() {
    pb::LeaseTimeToLiveRequest request;
    request.set_id(generator_.Lease());
    request.set_keys(true);
    grpc::ClientContext context;
    pb::LeaseTimeToLiveResponse theirs;
    ASSERT_TRUE(lease_->LeaseTimeToLive(&context, request, &theirs).ok());
    Answer<pb::LeaseTimeToLiveResponse> ours = machine_.TimeToLive(request.id(), true);
    ASSERT_TRUE(ours.ok());
    Normalize(ours.message.mutable_header());
    Normalize(theirs.mutable_header());
    if (ours->ttl() > 0 && theirs.ttl() > 0) theirs.set_ttl(ours->ttl());
    // etcd lists the keys in no order.
    std::sort(theirs.mutable_keys()->begin(), theirs.mutable_keys()->end());
    ASSERT_EQ(ours.message.DebugString(), theirs.DebugString());
  }

  Machine machine_;
  RequestGenerator generator_{GetParam(), {.for_etcd_34 = true}};
  std::unique_ptr<TestCluster> etcd_;
  std::unique_ptr<pb::KV::Stub> kv_;
  std::unique_ptr<pb::Lease::Stub> lease_;
  int answered_ = 0;
  int refused_ = 0;
};

TEST_P(DifferentialTest, AnswersAsEtcdDoes) {
  for (int i = 0; i < 3000 && !HasFatalFailure(); ++i) {
    SCOPED_TRACE(::testing::Message() << "seed " << GetParam() << " request " << i);
    Step();
  }
  // The generator asks for sense as well as nonsense.
  EXPECT_GT(answered_, 1000);
  EXPECT_GT(refused_, 100);
}

INSTANTIATE_TEST_SUITE_P(Seeds, DifferentialTest, ::testing::Range<uint64_t>(1, 5));

}  // namespace
}  // namespace conclave::apply
