// Fuzzes what other people's registrars have written into the registry: whatever stands at a key,
// it is an instance or a status; and what was read is read again, the same, from what is written.
//
// Input: one byte that picks the format, then the key's rest, a zero byte, and the value.
#include <iterator>
#include <string>

#include "conclave/base/check.h"
#include "conclave/registry/codec.h"
#include "conclave/tests/fuzz/fuzz.h"

namespace conclave {
namespace {

constexpr Format kFormats[] = {Format::kEtcdNaming, Format::kKratos,  Format::kKitex,
                               Format::kGoZero,     Format::kGoMicro, Format::kSkyDns};
constexpr LeaseId kLease = 77;

}  // namespace
}  // namespace conclave

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave;
  if (size == 0) return 0;
  const Codec& codec = CodecFor(kFormats[data[0] % std::size(kFormats)]);
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t zero = rest.find('\0');
  const std::string key = codec.Prefix("s") + rest.substr(0, zero);
  const std::string value = zero == std::string::npos ? "" : rest.substr(zero + 1);
  const absl::StatusOr<Instance> read = codec.Decode("s", key, value);
  if (!read.ok()) {
    CONCLAVE_CHECK(absl::IsInvalidArgument(read.status()) || absl::IsNotFound(read.status()),
                   read.status().ToString());
    return 0;
  }
  CONCLAVE_CHECK(read->service == "s", read->service);
  if (!codec.Validate(*read).ok()) return 0;
  const std::string written = codec.Encode(*read);
  const absl::StatusOr<Instance> again = codec.Decode("s", codec.Key(*read, kLease), written);
  CONCLAVE_CHECK(again.ok(), again.status().ToString(), " after ", written);
  CONCLAVE_CHECK(codec.Encode(*again) == written, written, " becomes ", codec.Encode(*again));
  return 0;
}

std::vector<std::string> FuzzSeeds() {
  using namespace conclave;
  std::vector<std::string> seeds;
  const Instance instance{.service = "s",
                          .id = "i-1",
                          .address = "10.1.2.3:8080",
                          .version = "1.4",
                          .zone = "eu",
                          .weight = 100,
                          .tags = {"canary"},
                          .attrs = {{"proto", "h2"}}};
  for (size_t i = 0; i < std::size(kFormats); ++i) {
    const Codec& codec = CodecFor(kFormats[i]);
    const std::string key = codec.Key(instance, kLease).substr(codec.Prefix("s").size());
    seeds.push_back(std::string(1, static_cast<char>(i)) + key + '\0' + codec.Encode(instance));
  }
  seeds.push_back(
      std::string("\0a:1\0{\"Op\":0,\"Addr\":\"a:1\",\"Metadata\":[1,\"\\u0000\"]}", 47));
  return seeds;
}
