#include "conclave/server/bbolt/format.h"

#include "conclave/base/check.h"

namespace conclave::bbolt {
namespace {

template <typename Number>
void Append(Number number, std::string* out) {
  for (size_t i = 0; i < sizeof(Number); ++i) out->push_back(static_cast<char>(number >> (8 * i)));
}

template <typename Number>
Number Read(std::string_view bytes) {
  CONCLAVE_CHECK(bytes.size() >= sizeof(Number));
  Number number = 0;
  for (size_t i = 0; i < sizeof(Number); ++i) {
    number |= static_cast<Number>(static_cast<Number>(static_cast<uint8_t>(bytes[i])) << (8 * i));
  }
  return number;
}

constexpr size_t kMetaChecked = kMetaBytes - 8;  // what the checksum covers

}  // namespace

void AppendU16(uint16_t number, std::string* out) { Append(number, out); }
void AppendU32(uint32_t number, std::string* out) { Append(number, out); }
void AppendU64(uint64_t number, std::string* out) { Append(number, out); }
uint16_t ReadU16(std::string_view bytes) { return Read<uint16_t>(bytes); }
uint32_t ReadU32(std::string_view bytes) { return Read<uint32_t>(bytes); }
uint64_t ReadU64(std::string_view bytes) { return Read<uint64_t>(bytes); }

void AppendPageHeader(const PageHeader& header, std::string* out) {
  AppendU64(header.id, out);
  AppendU16(header.flags, out);
  AppendU16(header.count, out);
  AppendU32(header.overflow, out);
}

PageHeader ReadPageHeader(std::string_view bytes) {
  return {.id = ReadU64(bytes),
          .flags = ReadU16(bytes.substr(8)),
          .count = ReadU16(bytes.substr(10)),
          .overflow = ReadU32(bytes.substr(12))};
}

void AppendMeta(const Meta& meta, std::string* out) {
  const size_t begin = out->size();
  AppendU32(kMagic, out);
  AppendU32(kVersion, out);
  AppendU32(meta.page_size, out);
  AppendU32(0, out);
  AppendU64(meta.root, out);
  AppendU64(0, out);
  AppendU64(meta.freelist, out);
  AppendU64(meta.pages, out);
  AppendU64(meta.transaction, out);
  AppendU64(Fnv1a(std::string_view(*out).substr(begin)), out);
}

std::optional<Meta> ReadMeta(std::string_view bytes) {
  if (bytes.size() < kMetaBytes || ReadU32(bytes) != kMagic ||
      ReadU32(bytes.substr(4)) != kVersion ||
      ReadU64(bytes.substr(kMetaChecked)) != Fnv1a(bytes.substr(0, kMetaChecked))) {
    return std::nullopt;
  }
  return Meta{.page_size = ReadU32(bytes.substr(8)),
              .root = ReadU64(bytes.substr(16)),
              .freelist = ReadU64(bytes.substr(32)),
              .pages = ReadU64(bytes.substr(40)),
              .transaction = ReadU64(bytes.substr(48))};
}

uint64_t Fnv1a(std::string_view bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
  return hash;
}

}  // namespace conclave::bbolt
