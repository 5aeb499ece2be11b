#include "conclave/api/wire/requests.h"

namespace conclave::wire {
namespace {

// The fields of RequestOp are numbered as its kinds.
constexpr uint32_t kRequestOpFields = 4;

}  // namespace

bool ValidEmpty(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) reader.Skip();
  return reader.ok();
}

bool RangeRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        key = reader.Bytes();
        break;
      case LengthTag(2):
        range_end = reader.Bytes();
        break;
      case VarintTag(3):
        limit = reader.Int64();
        break;
      case VarintTag(4):
        revision = reader.Int64();
        break;
      case VarintTag(5):
        sort_order = reader.Int32();
        break;
      case VarintTag(6):
        sort_target = reader.Int32();
        break;
      case VarintTag(7):
        serializable = reader.Bool();
        break;
      case VarintTag(8):
        keys_only = reader.Bool();
        break;
      case VarintTag(9):
        count_only = reader.Bool();
        break;
      case VarintTag(10):
        min_mod_revision = reader.Int64();
        break;
      case VarintTag(11):
        max_mod_revision = reader.Int64();
        break;
      case VarintTag(12):
        min_create_revision = reader.Int64();
        break;
      case VarintTag(13):
        max_create_revision = reader.Int64();
        break;
      default:
        reader.Skip(13);
    }
  }
  return reader.ok();
}

bool PutRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        key = reader.Bytes();
        break;
      case LengthTag(2):
        value = reader.Bytes();
        break;
      case VarintTag(3):
        lease = reader.Int64();
        break;
      case VarintTag(4):
        prev_kv = reader.Bool();
        break;
      case VarintTag(5):
        ignore_value = reader.Bool();
        break;
      case VarintTag(6):
        ignore_lease = reader.Bool();
        break;
      default:
        reader.Skip(6);
    }
  }
  return reader.ok();
}

bool DeleteRangeRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        key = reader.Bytes();
        break;
      case LengthTag(2):
        range_end = reader.Bytes();
        break;
      case VarintTag(3):
        prev_kv = reader.Bool();
        break;
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

bool CompactionRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        revision = reader.Int64();
        break;
      case VarintTag(2):
        physical = reader.Bool();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool Compare::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        result = reader.Int32();
        break;
      case VarintTag(2):
        target = reader.Int32();
        break;
      case LengthTag(3):
        key = reader.Bytes();
        break;
      case VarintTag(4):
      case VarintTag(5):
      case VarintTag(6):
      case VarintTag(8):
        union_field = reader.field();
        union_number = reader.Int64();
        break;
      case LengthTag(7):
        union_field = 7;
        union_value = reader.Bytes();
        break;
      case LengthTag(64):
        range_end = reader.Bytes();
        break;
      default:
        if (reader.field() == 64) reader.Fail();
        reader.Skip(8);
    }
  }
  return reader.ok();
}

bool MessageCursor::Next(std::string_view* message) {
  while (true) {
    while (inner_.Next()) {
      if (inner_.tag() == LengthTag(field_)) {
        *message = inner_.Bytes();
        return inner_.ok();
      }
      inner_.Skip();
    }
    if (outer_field_ == 0) return false;
    // The next piece of the message.
    if (!outer_.Next()) return false;
    if (outer_.tag() == LengthTag(outer_field_)) {
      inner_ = Reader(outer_.Bytes());
    } else {
      outer_.Skip();
    }
  }
}

bool RequestOp::Merge(std::string_view encoded) {
  pieces_ = Pieces();
  Reader reader(encoded);
  const char* const end = encoded.data() + encoded.size();
  while (true) {
    const char* const start = reader.position();
    if (!reader.Next()) break;
    const uint32_t field = reader.field();
    if (field > kRequestOpFields) {
      reader.Skip();
      continue;
    }
    if (reader.tag() != LengthTag(field)) reader.Fail();
    if (!reader.ok()) break;
    reader.Bytes();
    // A run of the same member merges; another member replaces what was before.
    if (field != pieces_.field) {
      pieces_ = Pieces{{start, static_cast<size_t>(end - start)}, field};
    }
  }
  return reader.ok();
}

template <typename Request>
bool RequestOp::Get(Request* request) const {
  *request = Request();
  Reader reader(pieces_.bytes);
  while (reader.Next()) {
    if (reader.tag() == LengthTag(pieces_.field)) {
      const std::string_view piece = reader.Bytes();
      if (!reader.ok() || !request->Merge(piece)) return false;
    } else {
      reader.Skip();
    }
  }
  return reader.ok();
}

template bool RequestOp::Get(RangeRequest*) const;
template bool RequestOp::Get(PutRequest*) const;
template bool RequestOp::Get(DeleteRangeRequest*) const;

namespace {

bool ValidTxnAt(std::string_view encoded, int depth);

// Every member of the oneof is looked at, also those that a later one replaces: a malformed one
// makes the whole message malformed.
bool ValidRequestOp(std::string_view encoded, int depth) {
  Reader reader(encoded, depth);
  RangeRequest range;
  PutRequest put;
  DeleteRangeRequest delete_range;
  while (reader.Next()) {
    if (reader.field() > kRequestOpFields) {
      reader.Skip();
      continue;
    }
    if (reader.tag() != LengthTag(reader.field())) return false;
    const std::string_view member = reader.Bytes();
    if (!reader.ok() || depth <= 0) return false;
    bool valid = false;
    switch (static_cast<RequestOp::Kind>(reader.field())) {
      case RequestOp::Kind::kNone:
        break;
      case RequestOp::Kind::kRange:
        valid = range.Merge(member);
        break;
      case RequestOp::Kind::kPut:
        valid = put.Merge(member);
        break;
      case RequestOp::Kind::kDeleteRange:
        valid = delete_range.Merge(member);
        break;
      case RequestOp::Kind::kTxn:
        valid = ValidTxnAt(member, depth - 1);
        break;
    }
    if (!valid) return false;
  }
  return reader.ok();
}

// `depth`: the levels of nesting that are left below this message; it bounds the recursion.
bool ValidTxnAt(std::string_view encoded, int depth) {
  Reader reader(encoded, depth);
  while (reader.Next()) {
    if (reader.field() > 3) {
      reader.Skip();
      continue;
    }
    if (reader.tag() != LengthTag(reader.field())) return false;
    const uint32_t field = reader.field();
    const std::string_view member = reader.Bytes();
    if (!reader.ok() || depth <= 0) return false;
    if (field == 1) {
      Compare compare;
      if (!compare.Merge(member)) return false;
    } else if (!ValidRequestOp(member, depth - 1)) {
      return false;
    }
  }
  return reader.ok();
}

}  // namespace

bool ValidTxn(std::string_view encoded) { return ValidTxnAt(encoded, kMaxDepth); }

bool LeaseGrantRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        ttl_s = reader.Int64();
        break;
      case VarintTag(2):
        id = reader.Int64();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool LeaseIdRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    if (reader.tag() == VarintTag(1)) {
      id = reader.Int64();
    } else {
      reader.Skip(1);
    }
  }
  return reader.ok();
}

bool LeaseTimeToLiveRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        id = reader.Int64();
        break;
      case VarintTag(2):
        keys = reader.Bool();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool WatchCreateRequest::Merge(std::string_view encoded) {
  const auto filter = [this](uint64_t type) {
    const auto number = static_cast<int32_t>(type);
    if (number == 0) filter_put = true;
    if (number == 1) filter_delete = true;
  };
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        key = reader.Bytes();
        break;
      case LengthTag(2):
        range_end = reader.Bytes();
        break;
      case VarintTag(3):
        start_revision = reader.Int64();
        break;
      case VarintTag(4):
        progress_notify = reader.Bool();
        break;
      case VarintTag(5):
        filter(reader.Varint());
        break;
      case LengthTag(5): {  // packed
        const std::string_view packed = reader.Bytes();
        Reader numbers(packed);
        while (numbers.ok() && numbers.position() != packed.data() + packed.size()) {
          filter(numbers.Varint());
        }
        if (!numbers.ok()) reader.Fail();
        break;
      }
      case VarintTag(6):
        prev_kv = reader.Bool();
        break;
      case VarintTag(7):
        watch_id = reader.Int64();
        break;
      case VarintTag(8):
        fragment = reader.Bool();
        break;
      default:
        reader.Skip(8);
    }
  }
  return reader.ok();
}

bool WatchRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    const uint32_t field = reader.field();
    if (field > 3 || reader.tag() != LengthTag(field)) {
      reader.Skip(3);
      continue;
    }
    const std::string_view member = reader.Bytes();
    if (!reader.ok()) return false;
    if (field != static_cast<uint32_t>(kind)) {
      kind = static_cast<Kind>(field);
      create = WatchCreateRequest();
      cancel_watch_id = 0;
    }
    switch (kind) {
      case Kind::kNone:
        break;
      case Kind::kCreate:
        if (!create.Merge(member)) return false;
        break;
      case Kind::kCancel: {
        LeaseIdRequest cancel{cancel_watch_id};  // WatchCancelRequest has the same shape
        if (!cancel.Merge(member)) return false;
        cancel_watch_id = cancel.id;
        break;
      }
      case Kind::kProgress:
        if (!ValidEmpty(member)) return false;
        break;
    }
  }
  return reader.ok();
}

bool MemberAddRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case LengthTag(1):
        peer_urls.push_back(reader.String());
        break;
      case VarintTag(2):
        is_learner = reader.Bool();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool MemberIdRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    if (reader.tag() == VarintTag(1)) {
      id = reader.Varint();
    } else {
      reader.Skip(1);
    }
  }
  return reader.ok();
}

bool MemberUpdateRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        id = reader.Varint();
        break;
      case LengthTag(2):
        peer_urls.push_back(reader.String());
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

bool MemberListRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    if (reader.tag() == VarintTag(1)) {
      linearizable = reader.Bool();
    } else {
      reader.Skip(1);
    }
  }
  return reader.ok();
}

bool AlarmRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        action = reader.Int32();
        break;
      case VarintTag(2):
        member_id = reader.Varint();
        break;
      case VarintTag(3):
        alarm = reader.Int32();
        break;
      default:
        reader.Skip(3);
    }
  }
  return reader.ok();
}

bool HashKvRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    if (reader.tag() == VarintTag(1)) {
      revision = reader.Int64();
    } else {
      reader.Skip(1);
    }
  }
  return reader.ok();
}

bool MoveLeaderRequest::Merge(std::string_view encoded) {
  MemberIdRequest same_shape{target_id};
  const bool valid = same_shape.Merge(encoded);
  target_id = same_shape.id;
  return valid;
}

bool DowngradeRequest::Merge(std::string_view encoded) {
  Reader reader(encoded);
  while (reader.Next()) {
    switch (reader.tag()) {
      case VarintTag(1):
        action = reader.Int32();
        break;
      case LengthTag(2):
        version = reader.String();
        break;
      default:
        reader.Skip(2);
    }
  }
  return reader.ok();
}

}  // namespace conclave::wire
