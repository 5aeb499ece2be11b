// Fuzzes the views of requests that the hot path reads without protobuf: whatever the bytes,
// protobuf accepts them as well and reads the same, or both refuse them.
//
// Input: one byte that picks the type, then the encoding.
#include <gtest/gtest.h>

#include <iterator>

#include "conclave/base/check.h"
#include "conclave/base/prng.h"
#include "conclave/tests/fuzz/fuzz.h"
#include "conclave/tests/wire/same.h"

namespace conclave::wire {
namespace {

namespace pb = etcdserverpb;

struct Type {
  void (*compare)(const std::string& encoded);
  std::string (*make)(Prng* prng);
};

template <typename Message>
std::string Make(Prng* prng) {
  Message message;
  FillRandomly(&message, prng, 4);
  return message.SerializeAsString();
}

template <typename View, typename Message>
constexpr Type Of() {
  return {ExpectSameMeaning<View, Message>, Make<Message>};
}

constexpr Type kTypes[] = {Of<RangeRequest, pb::RangeRequest>(),
                           Of<PutRequest, pb::PutRequest>(),
                           Of<DeleteRangeRequest, pb::DeleteRangeRequest>(),
                           Of<TxnRequest, pb::TxnRequest>(),
                           Of<CompactionRequest, pb::CompactionRequest>(),
                           Of<LeaseGrantRequest, pb::LeaseGrantRequest>(),
                           Of<LeaseRevokeRequest, pb::LeaseRevokeRequest>(),
                           Of<LeaseKeepAliveRequest, pb::LeaseKeepAliveRequest>(),
                           Of<LeaseTimeToLiveRequest, pb::LeaseTimeToLiveRequest>(),
                           Of<WatchRequest, pb::WatchRequest>(),
                           Of<MemberAddRequest, pb::MemberAddRequest>(),
                           Of<MemberUpdateRequest, pb::MemberUpdateRequest>(),
                           Of<AlarmRequest, pb::AlarmRequest>(),
                           Of<DowngradeRequest, pb::DowngradeRequest>()};

}  // namespace
}  // namespace conclave::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave::wire;
  if (size == 0) return 0;
  kTypes[data[0] % std::size(kTypes)].compare(
      std::string(reinterpret_cast<const char*>(data) + 1, size - 1));
  // Expectations outside of a test are kept here; what differed has been printed.
  CONCLAVE_CHECK(!testing::UnitTest::GetInstance()->ad_hoc_test_result().Failed(),
                 "the view and protobuf disagree");
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using namespace conclave::wire;
  std::vector<std::string> seeds;
  conclave::Prng prng(1);
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    for (int k = 0; k < 8; ++k) {
      seeds.push_back(std::string(1, static_cast<char>(i)) + kTypes[i].make(&prng));
    }
  }
  return seeds;
}
