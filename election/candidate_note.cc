#include "conclave/election/candidate_note.h"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>

namespace conclave {

std::string EncodeNote(const CandidateNote& note) {
  nlohmann::ordered_json json;
  json["id"] = note.id;
  json["prio"] = note.priority;
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::optional<CandidateNote> ParseNote(std::string_view value) {
  const auto json = nlohmann::json::parse(value, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  CandidateNote note;
  if (auto id = json.find("id"); id != json.end()) {
    if (!id->is_string()) return std::nullopt;
    note.id = id->get<std::string>();
    if (note.id.size() > kCandidateIdMax) return std::nullopt;
  }
  if (auto priority = json.find("prio"); priority != json.end()) {
    if (!priority->is_number_integer()) return std::nullopt;
    const auto number = priority->get<int64_t>();
    if (number < std::numeric_limits<int>::min() || number > std::numeric_limits<int>::max()) {
      return std::nullopt;
    }
    note.priority = static_cast<int>(number);
  }
  return note;
}

std::string CandidatePrefix(std::string_view name) { return std::string(name) + "/"; }
std::string NotePrefix(std::string_view name) { return std::string(name) + "~candidate/"; }
std::string NextKey(std::string_view name) { return std::string(name) + "~next"; }
KeyRange NotesOf(std::string_view name) { return Prefix(std::string(name) + "~"); }

std::string NoteKeyOf(std::string_view name, std::string_view candidate_key) {
  const std::string prefix = CandidatePrefix(name);
  if (candidate_key.substr(0, prefix.size()) != prefix) return "";
  return NotePrefix(name) + std::string(candidate_key.substr(prefix.size()));
}

}  // namespace conclave
