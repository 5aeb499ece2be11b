#include "conclave/tests/wire/message_generator.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>

namespace conclave::wire {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

uint64_t RandomNumber(Prng* prng) { return prng->Next() >> prng->Below(65 - 1); }

std::string RandomText(Prng* prng) {
  std::string text(prng->Chance(1, 20) ? prng->Below(300) : prng->Below(5), 'a');
  for (char& c : text) c = static_cast<char>('a' + prng->Below(4));
  return text;
}

void FillField(Message* message, const FieldDescriptor* field, Prng* prng, int depth) {
  const Reflection* const reflection = message->GetReflection();
  const bool repeated = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT64: {
      const auto value = static_cast<int64_t>(RandomNumber(prng));
      repeated ? reflection->AddInt64(message, field, value)
               : reflection->SetInt64(message, field, value);
      return;
    }
    case FieldDescriptor::CPPTYPE_UINT64:
      reflection->SetUInt64(message, field, RandomNumber(prng));
      return;
    case FieldDescriptor::CPPTYPE_UINT32:
      reflection->SetUInt32(message, field, static_cast<uint32_t>(RandomNumber(prng)));
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      reflection->SetBool(message, field, prng->Chance(1, 2));
      return;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const int value = static_cast<int>(prng->Between(-1, 6));
      repeated ? reflection->AddEnumValue(message, field, value)
               : reflection->SetEnumValue(message, field, value);
      return;
    }
    case FieldDescriptor::CPPTYPE_STRING:
      repeated ? reflection->AddString(message, field, RandomText(prng))
               : reflection->SetString(message, field, RandomText(prng));
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (depth == 0) return;
      FillRandomly(repeated ? reflection->AddMessage(message, field)
                            : reflection->MutableMessage(message, field),
                   prng, depth - 1);
      return;
    default:
      return;
  }
}

}  // namespace

void FillRandomly(Message* message, Prng* prng, int depth) {
  const google::protobuf::Descriptor* const type = message->GetDescriptor();
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* const field = type->field(i);
    const uint64_t times = field->is_repeated() ? prng->Below(4) : prng->Below(2);
    for (uint64_t n = 0; n < times; ++n) FillField(message, field, prng, depth);
  }
}

void Damage(std::string* bytes, Prng* prng) {
  for (uint64_t edits = prng->Below(4) + 1; edits > 0; --edits) {
    const size_t at = bytes->empty() ? 0 : prng->Below(bytes->size());
    switch (prng->Below(6)) {
      case 0:
        if (!bytes->empty()) (*bytes)[at] ^= static_cast<char>(1 << prng->Below(8));
        break;
      case 1:
        if (!bytes->empty()) (*bytes)[at] = static_cast<char>(prng->Next());
        break;
      case 2:
        bytes->resize(at);
        break;
      case 3:
        bytes->insert(at, 1, static_cast<char>(prng->Below(64)));
        break;
      case 4:
        bytes->append(bytes->substr(at, prng->Below(20)));
        break;
      case 5:
        bytes->insert(at, bytes->substr(bytes->empty() ? 0 : prng->Below(bytes->size()), 8));
        break;
    }
  }
}

bool HasFieldOfWrongWireType(const google::protobuf::Descriptor* type, const std::string& encoded) {
  google::protobuf::UnknownFieldSet fields;
  if (!fields.ParseFromString(encoded)) return false;
  for (int i = 0; i < fields.field_count(); ++i) {
    const google::protobuf::UnknownField& value = fields.field(i);
    const FieldDescriptor* const field = type->FindFieldByNumber(value.number());
    if (field == nullptr) continue;
    const bool length_delimited =
        value.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED;
    const bool number = value.type() == google::protobuf::UnknownField::TYPE_VARINT;
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        if (!length_delimited) return true;
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        if (!length_delimited) return true;
        if (HasFieldOfWrongWireType(field->message_type(), value.length_delimited())) return true;
        break;
      default:
        if (!number && !(length_delimited && field->is_repeated())) return true;
    }
  }
  return false;
}

}  // namespace conclave::wire
