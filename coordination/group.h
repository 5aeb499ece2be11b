// Group: who is a member now, each with a few bytes about itself.
//
//   conclave::Group group(client, "groups/workers");
//   absl::StatusOr<conclave::Membership> me = group.Join(session, "worker-1", "10.1.2.3:9000");
//   absl::Status all = group.WaitForMembers(3, {.timeout = absl::Minutes(1)});
//   conclave::GroupWatch watch = group.Watch([](const conclave::GroupChange& change) { ... });
//
// A member is one key, "<name>/<id>", with its data as the value, on its session's lease: whoever
// stops renewing is a member no longer. To stay listed whatever happens is the registry's business.
#pragma once

#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "conclave/client/client.h"
#include "conclave/coordination/group_table.h"

namespace conclave {

// To be a member, as long as it lasts. Leaving: Leave, or the destructor, which does not wait.
class [[nodiscard]] Membership {
 public:
  Membership(Membership&&) noexcept;
  Membership& operator=(Membership&&) noexcept;
  ~Membership();

  const std::string& id() const;
  // Create revision of the key: grows with every member that joins.
  int64_t revision() const;
  // A condition for a transaction: it runs only while we are a member.
  Compare StillMember() const;
  // False once we have left, or the session's local deadline has passed. From the clock; no call.
  // That somebody deleted the key shows in Update and StillMember only.
  bool alive() const;
  // The session's.
  std::stop_token stop_token() const;

  // Replaces the data. Aborted: we are not a member any more.
  absl::Status Update(std::string_view data, const CallOptions& call = {});
  // OK also if we were not a member any more.
  absl::Status Leave(const CallOptions& call = {});

 private:
  friend class Group;
  struct Rep;
  explicit Membership(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

// As long as it lives its callback hears of changes; not after its destructor has returned. It may
// go in its own callback.
class [[nodiscard]] GroupWatch {
 public:
  GroupWatch();
  GroupWatch(GroupWatch&&) noexcept;
  GroupWatch& operator=(GroupWatch&&) noexcept;
  ~GroupWatch();

 private:
  friend class Group;
  explicit GroupWatch(conclave::Watch watch);
  conclave::Watch watch_;
};

class Group {
 public:
  static constexpr size_t kDataMax = 64 * 1024;

  // What cannot be a name makes every call InvalidArgument.
  Group(const Client& client, std::string_view name);

  // AlreadyExists: another session is the member of that id. The same session joins again: its
  // earlier membership is over, and the new one has a key of its own.
  absl::StatusOr<Membership> Join(const Session& session, std::string_view id,
                                  std::string_view data = "", const CallOptions& call = {});
  // In the order of their ids.
  absl::StatusOr<std::vector<GroupMember>> Members(const CallOptions& call = {}) const;
  // Until there are at least that many members; without a timeout for ever.
  absl::Status WaitForMembers(int64_t count, const CallOptions& call = {}) const;

  // On the callback thread: all members first, as joined; then every change. Goes on across lost
  // connections and compactions (changes that were compacted away come as one). A name that cannot
  // be, and the end of a watch that cannot go on at all, come as a change with a status.
  GroupWatch Watch(absl::AnyInvocable<void(const GroupChange&)> callback) const;

 private:
  Client client_;
  std::string name_;
};

}  // namespace conclave
