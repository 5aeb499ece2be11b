// The typed calls of the Maintenance and the Cluster service, as calls.h has those of the others.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conclave/client/core/calls.h"
#include "conclave/client/core/engine.h"
#include "conclave/client/core/types.h"

namespace conclave::calls {

CallId Alarms(Engine& engine, Instant deadline, Done<std::vector<Alarm>> done);
// Ends the alarm; gives those that it ended.
CallId Disarm(Engine& engine, const Alarm& alarm, Instant deadline, Done<std::vector<Alarm>> done);
// The answer of these says nothing but that it is done.
CallId Defragment(Engine& engine, size_t endpoint, Instant deadline, Done<bool> done);
CallId MoveLeader(Engine& engine, size_t endpoint, uint64_t member_id, Instant deadline,
                  Done<bool> done);
CallId HashKv(Engine& engine, size_t endpoint, int64_t revision, Instant deadline,
              Done<HashKvResult> done);
// Gives the cluster's version.
CallId Downgrade(Engine& engine, DowngradeAction action, const std::string& version,
                 Instant deadline, Done<std::string> done);

CallId MemberList(Engine& engine, bool linearizable, Instant deadline,
                  Done<std::vector<Member>> done);
CallId MemberAdd(Engine& engine, const std::vector<std::string>& peer_urls, bool learner,
                 Instant deadline, Done<MemberAdded> done);
// These give the members there are then.
CallId MemberRemove(Engine& engine, uint64_t id, Instant deadline, Done<std::vector<Member>> done);
CallId MemberUpdate(Engine& engine, uint64_t id, const std::vector<std::string>& peer_urls,
                    Instant deadline, Done<std::vector<Member>> done);
CallId MemberPromote(Engine& engine, uint64_t id, Instant deadline, Done<std::vector<Member>> done);

}  // namespace conclave::calls
