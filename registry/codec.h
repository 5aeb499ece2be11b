// Codec: how one family of programs writes its instances into the store. A layout of keys, and the
// two directions of the value. Pure, and the same object for everybody.
//
//   kEtcdNaming  <service>/<address>                        {"Op":0,"Addr":...,"Metadata":...}
//   kKratos      /microservices/<service>/<id>              {"id","name","version","metadata",
//                                                            "endpoints":["grpc://<address>"]}
//   kKitex       kitex/registry-etcd/<service>/<address>    {"network","address","weight","tags"}
//   kGoZero      <service>/<lease, decimal>                 <address>
//   kGoMicro     /micro/registry/<service>/<id>             {"name","version","metadata",
//                                                            "endpoints","nodes":[{"id",...}]}
//   kSkyDns      /skydns/<service's labels, reversed>/<id>  {"host","port","weight"}
//
// What a format has no place for goes into its map of texts, if it has one, under our names (id,
// version, weight, zone, tags with commas between them, and the attributes as they are), else it is
// lost. An id that is not set is the address.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/core/types.h"
#include "conclave/registry/instance.h"

namespace conclave {

enum class Format { kEtcdNaming, kKratos, kKitex, kGoZero, kGoMicro, kSkyDns };

class Codec {
 public:
  virtual ~Codec() = default;

  virtual Format format() const = 0;

  // What all instances of `service` begin with, and to be listed and watched. With its separator at
  // the end: "a" never shows instances of "ab".
  virtual std::string Prefix(std::string_view service) const = 0;
  // Where `instance` stands. The lease matters only if LeaseInKey().
  virtual std::string Key(const Instance& instance, LeaseId lease) const = 0;
  virtual std::string Encode(const Instance& instance) const = 0;
  // The instance at a key under Prefix(service); its `service` is set. InvalidArgument says what is
  // wrong with the value, NotFound that the key belongs to another service. Never throws, whatever
  // the value holds.
  virtual absl::StatusOr<Instance> Decode(std::string_view service, std::string_view key,
                                          std::string_view value) const = 0;

  // InvalidArgument for an instance that is valid in itself but cannot be written like this.
  virtual absl::Status Validate(const Instance& instance) const;
  // True: the key moves with the lease, so two instances of a service cannot share one.
  virtual bool LeaseInKey() const { return false; }
  // True: readers of the format can tell a draining instance from a serving one. Else one that is
  // not serving must not stand there at all.
  virtual bool ShowsState() const { return false; }
};

const Codec& CodecFor(Format format);
// "etcd-naming", "kratos", "kitex", "go-zero", "go-micro", "skydns".
std::string_view FormatName(Format format);

}  // namespace conclave
