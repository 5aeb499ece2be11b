#include "conclave/registry/codec.h"

#include "conclave/base/check.h"
#include "conclave/registry/codec/codecs.h"

namespace conclave {

absl::Status Codec::Validate(const Instance&) const { return absl::OkStatus(); }

const Codec& CodecFor(Format format) {
  switch (format) {
    case Format::kEtcdNaming:
      return EtcdNamingCodec();
    case Format::kKratos:
      return KratosCodec();
    case Format::kKitex:
      return KitexCodec();
    case Format::kGoZero:
      return GoZeroCodec();
    case Format::kGoMicro:
      return GoMicroCodec();
    case Format::kSkyDns:
      return SkyDnsCodec();
  }
  CONCLAVE_CHECK(false, "no such format");
}

std::string_view FormatName(Format format) {
  switch (format) {
    case Format::kEtcdNaming:
      return "etcd-naming";
    case Format::kKratos:
      return "kratos";
    case Format::kKitex:
      return "kitex";
    case Format::kGoZero:
      return "go-zero";
    case Format::kGoMicro:
      return "go-micro";
    case Format::kSkyDns:
      return "skydns";
  }
  return "?";
}

}  // namespace conclave
