// CandidateNote: what a candidate says about itself beside its key.
//
// The keys of an election, and who reads them:
//   <name>/<lease hex>            the candidate; its value is the proposal          every client
//   <name>~candidate/<lease hex>  {"id":"node-1","prio":10}, on the same lease      this library
//   <name>~next                   the id that is to lead next, on a lease of its    this library
//                                 own that ends with the transfer
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "conclave/client/core/types.h"

namespace conclave {

constexpr size_t kCandidateIdMax = 256;

struct CandidateNote {
  std::string id{};
  int priority = 0;

  friend bool operator==(const CandidateNote&, const CandidateNote&) = default;
};

std::string EncodeNote(const CandidateNote& note);
// Absent for a value that is not a note.
std::optional<CandidateNote> ParseNote(std::string_view value);

std::string CandidatePrefix(std::string_view name);
std::string NotePrefix(std::string_view name);
std::string NextKey(std::string_view name);
// All keys of notes and of the mark.
KeyRange NotesOf(std::string_view name);
// The key of the note that belongs to a candidate's key; empty if it is none of this election.
std::string NoteKeyOf(std::string_view name, std::string_view candidate_key);

}  // namespace conclave
