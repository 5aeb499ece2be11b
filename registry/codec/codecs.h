// The formats, and what those that carry a map of texts share.
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "conclave/registry/codec.h"

namespace conclave {

const Codec& EtcdNamingCodec();
const Codec& KratosCodec();
const Codec& KitexCodec();
const Codec& GoZeroCodec();
const Codec& GoMicroCodec();
const Codec& SkyDnsCodec();

// The id, or the address in its place.
const std::string& IdOrAddress(const Instance& instance);

// The attributes, and what else is set, as a map of texts; and back. `version` stays out: those
// formats have a place of its own for it.
std::map<std::string, std::string> TextsOf(const Instance& instance);
void ReadTexts(const nlohmann::ordered_json* texts, Instance& instance);

}  // namespace conclave
