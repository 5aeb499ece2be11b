// The protocol's error table, row by row: may the call be made again, and may a write have
// happened?
#include "conclave/client/core/judge.h"

#include <string>
#include <vector>

#include "conclave/client/core/error.h"
#include "gtest/gtest.h"

namespace conclave {
namespace {

using Code = absl::StatusCode;

struct Row {
  int wire_code;
  std::string text;
  Code code;                // that the caller gets
  bool read_again = false;  // a read is tried again
  bool write_again = false;
  bool write_unknown = false;  // a write may have happened
  bool blame = false;
};

constexpr Code kInvalid = Code::kInvalidArgument;
constexpr Code kPrecondition = Code::kFailedPrecondition;

const std::vector<Row>& Table() {
  static const auto& table = *new std::vector<Row>{
      // Refusals: final and known.
      {3, "etcdserver: key is not provided", kInvalid},
      {3, "etcdserver: too many operations in txn request", kInvalid},
      {3, "etcdserver: duplicate key given in txn request", kInvalid},
      {3, "etcdserver: request is too large", kInvalid},
      {3, "etcdserver: authentication failed, invalid user ID or password", kInvalid},
      {3, "etcdserver: revision of auth store is old", kInvalid},
      {5, "etcdserver: requested lease not found", Code::kNotFound},
      {5, "etcdserver: member not found", Code::kNotFound},
      {7, "etcdserver: permission denied", Code::kPermissionDenied},
      {9, "etcdserver: lease already exists", kPrecondition},
      {9, "etcdserver: too many learner members in cluster", kPrecondition},
      {9, "etcdserver: cluster ID mismatch", kPrecondition},
      {9, "etcdserver: not capable", kPrecondition},
      {11, "etcdserver: mvcc: required revision has been compacted", Code::kOutOfRange},
      {11, "etcdserver: mvcc: required revision is a future revision", Code::kOutOfRange},
      {11, "etcdserver: too large lease TTL", Code::kOutOfRange},
      {12, "unknown service", Code::kUnimplemented},
      {16, "etcdserver: invalid auth token", Code::kUnauthenticated},
      {15, "etcdserver: corrupt cluster", Code::kDataLoss},
      {2, "etcdserver: re-configuration failed due to not enough started members", kPrecondition},
      {8, "Received message larger than max (9 vs. 4)", Code::kResourceExhausted},
      // Nothing was done; another member may do it.
      {14, "etcdserver: no leader", Code::kUnavailable, true, true, false, true},
      {9, "etcdserver: rpc not supported for learner", kPrecondition, true, true, false, true},
      {9, "etcdserver: not leader", kPrecondition, true, true, false, true},
      {2, "not a primary lessor", Code::kUnavailable, true, true, false, true},
      // Nothing was done; later it may be.
      {2, "etcdserver: too many requests", Code::kResourceExhausted, true, true, false, false},
      {8, "etcdserver: too many requests", Code::kResourceExhausted, true, true, false, false},
      {14, "etcdserver: unhealthy cluster", Code::kUnavailable, true, true, false, false},
      // Nobody knows: a read goes on, a write says so.
      {2, "context deadline exceeded", Code::kDeadlineExceeded, true, false, true, true},
      {14, "etcdserver: leader changed", Code::kUnavailable, true, false, true, true},
      {14, "etcdserver: server stopped", Code::kUnavailable, true, false, true, true},
      {14, "etcdserver: request timed out", Code::kUnavailable, true, false, true, true},
      {14, "etcdserver: request timed out, possibly due to previous leader failure",
       Code::kUnavailable, true, false, true, true},
      {14, "etcdserver: request timed out, possibly due to connection lost", Code::kUnavailable,
       true, false, true, true},
      {14, "etcdserver: request timed out, waiting for the applied index took too long",
       Code::kUnavailable, true, false, true, true},
      {14, "Socket closed", Code::kUnavailable, true, false, true, true},
      {4, "etcdserver: context deadline exceeded", Code::kDeadlineExceeded, true, false, true,
       true},
      {4, "Deadline Exceeded", Code::kDeadlineExceeded, true, false, true, true},
      {1, "etcdserver: request canceled", Code::kCancelled, false, false, true, false},
      {2, "etcdserver: request timed out, leader transfer took too long", Code::kUnknown, false,
       false, true, false},
      {2, "something new", Code::kUnknown, false, false, true, false},
      {13, "Received RST_STREAM with error code 2", Code::kInternal, false, false, true, false},
      // Looks like a refusal, and may come after the write was applied.
      {8, "etcdserver: mvcc: database space exceeded", Code::kResourceExhausted, false, false, true,
       false},
      // Codes that nobody has.
      {99, "?", Code::kUnknown, false, false, true, false},
      {-3, "?", Code::kUnknown, false, false, true, false},
  };
  return table;
}

TEST(JudgeTest, EveryRowOfTheTable) {
  for (const Row& row : Table()) {
    const WireStatus wire{.code = row.wire_code, .message = row.text};
    const Verdict read = Judge(CallKind::kRead, wire, "m:1");
    EXPECT_EQ(read.status.code(), row.code) << row.text;
    EXPECT_EQ(read.try_again, row.read_again) << row.text;
    EXPECT_EQ(IsRetryable(read.status), row.read_again) << row.text;
    EXPECT_FALSE(IsOutcomeUnknown(read.status)) << row.text;
    const Verdict write = Judge(CallKind::kWrite, wire, "m:1");
    EXPECT_EQ(write.try_again, row.write_again) << row.text;
    EXPECT_EQ(IsOutcomeUnknown(write.status), row.write_unknown) << row.text;
    EXPECT_EQ(write.blame_endpoint, row.blame) << row.text;
    EXPECT_EQ(GetErrorDetail(write.status)->endpoint, "m:1");
  }
}

TEST(JudgeTest, WhatWasNeverSentDidNotHappen) {
  for (const Row& row : Table()) {
    if (row.text == "etcdserver: mvcc: database space exceeded") continue;  // only a server says so
    const Verdict write =
        Judge(CallKind::kWrite, {.code = row.wire_code, .message = row.text, .sent = false}, "m:1");
    EXPECT_FALSE(IsOutcomeUnknown(write.status)) << row.text;
    EXPECT_EQ(write.try_again, row.read_again) << row.text;
  }
}

TEST(JudgeTest, TheServersOwnTextIsKept) {
  const Verdict verdict =
      Judge(CallKind::kRead, {.code = 14, .message = "etcdserver: no leader"}, "10.0.0.1:2379");
  EXPECT_EQ(GetErrorDetail(verdict.status)->server_error, "etcdserver: no leader");
  EXPECT_EQ(verdict.status.message(), "etcdserver: no leader (10.0.0.1:2379)");
  const Verdict transport = Judge(CallKind::kRead, {.code = 14, .message = "Socket closed"}, "m:1");
  EXPECT_EQ(GetErrorDetail(transport.status)->server_error, "");
}

}  // namespace
}  // namespace conclave
