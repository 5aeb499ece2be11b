// Requests as views into their encoding.
//
// A view holds string_views into the bytes that it was parsed from, so those bytes must outlive it.
// Parse replaces a view's fields by those of an encoding; Merge adds a further encoding's to them
// as protobuf does (scalars: the last one wins). Both return false if the encoding is malformed;
// the view is then unusable.
//
// Compares and operations of a transaction are not stored but walked (MessageCursor): a TxnRequest
// costs nothing, however many operations it has. ValidTxn must have accepted the bytes before they
// are walked.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "conclave/api/wire/reader.h"

namespace conclave::wire {

template <typename Request>
[[nodiscard]] bool Parse(std::string_view encoded, Request* request) {
  *request = Request();
  return request->Merge(encoded);
}

// For messages without fields: true if `encoded` is a valid encoding.
[[nodiscard]] bool ValidEmpty(std::string_view encoded);

// ---- KV -----------------------------------------------------------------------------------------

enum class SortOrder : int32_t { kNone = 0, kAscend = 1, kDescend = 2 };
enum class SortTarget : int32_t { kKey = 0, kVersion = 1, kCreate = 2, kMod = 3, kValue = 4 };

struct RangeRequest {
  std::string_view key;
  std::string_view range_end;
  int64_t limit = 0;
  int64_t revision = 0;
  int32_t sort_order = 0;   // SortOrder, or a number that is none
  int32_t sort_target = 0;  // SortTarget, or a number that is none
  bool serializable = false;
  bool keys_only = false;
  bool count_only = false;
  int64_t min_mod_revision = 0;
  int64_t max_mod_revision = 0;
  int64_t min_create_revision = 0;
  int64_t max_create_revision = 0;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct PutRequest {
  std::string_view key;
  std::string_view value;
  int64_t lease = 0;
  bool prev_kv = false;
  bool ignore_value = false;
  bool ignore_lease = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct DeleteRangeRequest {
  std::string_view key;
  std::string_view range_end;
  bool prev_kv = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct CompactionRequest {
  int64_t revision = 0;
  bool physical = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

enum class CompareResult : int32_t { kEqual = 0, kGreater = 1, kLess = 2, kNotEqual = 3 };
enum class CompareTarget : int32_t { kVersion = 0, kCreate = 1, kMod = 2, kValue = 3, kLease = 4 };

struct Compare {
  int32_t result = 0;  // CompareResult, or a number that is none
  int32_t target = 0;  // CompareTarget, or a number that is none
  std::string_view key;
  std::string_view range_end;
  // Which member of target_union is set, as a field number (4 version .. 8 lease); 0 for none. It
  // need not agree with `target`; a member that is not set counts as 0 or "".
  uint32_t union_field = 0;
  int64_t union_number = 0;
  std::string_view union_value;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// One logical message that may be spread over several pieces of another one: a submessage field
// that occurs more than once means the occurrences merged.
struct Pieces {
  std::string_view bytes;  // the message itself, or with `field` the outer message's rest
  uint32_t field = 0;      // the submessage's number in `bytes`; 0: `bytes` is the message
};

// Walks the submessages with number `field` of a message, in order.
class MessageCursor {
 public:
  MessageCursor(Pieces pieces, uint32_t field)
      : outer_(pieces.bytes),
        inner_(pieces.field == 0 ? pieces.bytes : std::string_view()),
        outer_field_(pieces.field),
        field_(field) {}

  // False at the end.
  bool Next(std::string_view* message);

 private:
  Reader outer_;
  Reader inner_;
  uint32_t outer_field_;
  uint32_t field_;
};

class TxnRequest {
 public:
  TxnRequest() = default;
  explicit TxnRequest(std::string_view encoded) : pieces_{encoded, 0} {}
  explicit TxnRequest(Pieces pieces) : pieces_(pieces) {}

  MessageCursor compares() const { return MessageCursor(pieces_, 1); }
  MessageCursor success() const { return MessageCursor(pieces_, 2); }
  MessageCursor failure() const { return MessageCursor(pieces_, 3); }
  MessageCursor branch(bool succeeded) const { return succeeded ? success() : failure(); }

 private:
  Pieces pieces_;
};

// One operation of a transaction: the member of the oneof that is set, if any.
class RequestOp {
 public:
  enum class Kind : uint8_t { kNone = 0, kRange = 1, kPut = 2, kDeleteRange = 3, kTxn = 4 };

  [[nodiscard]] bool Merge(std::string_view encoded);

  Kind kind() const { return static_cast<Kind>(pieces_.field); }

  // Each only for its kind; false if malformed (never behind ValidTxn).
  [[nodiscard]] bool GetRange(RangeRequest* request) const { return Get(request); }
  [[nodiscard]] bool GetPut(PutRequest* request) const { return Get(request); }
  [[nodiscard]] bool GetDeleteRange(DeleteRangeRequest* request) const { return Get(request); }
  TxnRequest txn() const { return TxnRequest(pieces_); }

 private:
  template <typename Request>
  bool Get(Request* request) const;

  Pieces pieces_;
};

// True if `encoded` is a well-formed TxnRequest in every depth.
[[nodiscard]] bool ValidTxn(std::string_view encoded);

// ---- Lease --------------------------------------------------------------------------------------

struct LeaseGrantRequest {
  int64_t ttl_s = 0;
  int64_t id = 0;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// Also LeaseKeepAliveRequest, which has the same shape.
struct LeaseIdRequest {
  int64_t id = 0;

  [[nodiscard]] bool Merge(std::string_view encoded);
};
using LeaseRevokeRequest = LeaseIdRequest;
using LeaseKeepAliveRequest = LeaseIdRequest;

struct LeaseTimeToLiveRequest {
  int64_t id = 0;
  bool keys = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// ---- Watch --------------------------------------------------------------------------------------

struct WatchCreateRequest {
  std::string_view key;
  std::string_view range_end;
  int64_t start_revision = 0;
  bool progress_notify = false;
  bool filter_put = false;     // FilterType NOPUT
  bool filter_delete = false;  // FilterType NODELETE
  bool prev_kv = false;
  int64_t watch_id = 0;
  bool fragment = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct WatchRequest {
  enum class Kind : uint8_t { kNone = 0, kCreate = 1, kCancel = 2, kProgress = 3 };

  Kind kind = Kind::kNone;
  WatchCreateRequest create;    // kCreate
  int64_t cancel_watch_id = 0;  // kCancel

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// ---- Cluster, Maintenance -----------------------------------------------------------------------

struct MemberAddRequest {
  std::vector<std::string_view> peer_urls;
  bool is_learner = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

// Also MemberPromoteRequest.
struct MemberIdRequest {
  uint64_t id = 0;

  [[nodiscard]] bool Merge(std::string_view encoded);
};
using MemberRemoveRequest = MemberIdRequest;
using MemberPromoteRequest = MemberIdRequest;

struct MemberUpdateRequest {
  uint64_t id = 0;
  std::vector<std::string_view> peer_urls;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct MemberListRequest {
  bool linearizable = false;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

enum class AlarmType : int32_t { kNone = 0, kNoSpace = 1, kCorrupt = 2 };
enum class AlarmAction : int32_t { kGet = 0, kActivate = 1, kDeactivate = 2 };

struct AlarmRequest {
  int32_t action = 0;  // AlarmAction, or a number that is none
  uint64_t member_id = 0;
  int32_t alarm = 0;  // AlarmType, or a number that is none

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct HashKvRequest {
  int64_t revision = 0;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

struct MoveLeaderRequest {
  uint64_t target_id = 0;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

enum class DowngradeAction : int32_t { kValidate = 0, kEnable = 1, kCancel = 2 };

struct DowngradeRequest {
  int32_t action = 0;  // DowngradeAction, or a number that is none
  std::string_view version;

  [[nodiscard]] bool Merge(std::string_view encoded);
};

}  // namespace conclave::wire
