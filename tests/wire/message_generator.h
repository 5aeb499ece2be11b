// Random messages of any type of the protocol, by reflection; and random damage to their encoding.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <string>

#include "conclave/base/prng.h"

namespace conclave::wire {

// Fills every field with some probability; `depth` bounds the nesting.
void FillRandomly(google::protobuf::Message* message, Prng* prng, int depth);

// A few random edits: bits, bytes, cuts, insertions, repetitions of parts.
void Damage(std::string* bytes, Prng* prng);

// True if the encoding of a message of this type, in whatever depth, has a known field of the wrong
// wire type: protobuf lets it pass as an unknown one, we refuse it, as etcd does.
bool HasFieldOfWrongWireType(const google::protobuf::Descriptor* type, const std::string& encoded);

}  // namespace conclave::wire
