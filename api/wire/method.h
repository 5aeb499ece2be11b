// The unary methods of the protocol as numbers, and the shape of the buffer that a request arrives
// in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace conclave::wire {

// By the protocol's names. The values of methods that change the state are stored in the log, so
// they never change. Values from 128 on are free for commands that no client sends
// (server/apply/command.h).
enum class Method : uint8_t {
  kRange = 1,
  kPut = 2,
  kDeleteRange = 3,
  kTxn = 4,
  kCompact = 5,
  kLeaseGrant = 10,
  kLeaseRevoke = 11,
  kLeaseTimeToLive = 12,
  kLeaseLeases = 13,
  kMemberAdd = 20,
  kMemberRemove = 21,
  kMemberUpdate = 22,
  kMemberList = 23,
  kMemberPromote = 24,
  kAlarm = 30,
  kStatus = 31,
  kDefragment = 32,
  kHash = 33,
  kHashKv = 34,
  kMoveLeader = 35,
  kDowngrade = 36,
  kAuthEnable = 56,
  kAuthDisable = 57,
  kAuthStatus = 58,
  kAuthenticate = 59,
  kUserAdd = 60,
  kUserGet = 61,
  kUserList = 62,
  kUserDelete = 63,
  kUserChangePassword = 64,
  kUserGrantRole = 65,
  kUserRevokeRole = 66,
  kRoleAdd = 67,
  kRoleGet = 68,
  kRoleList = 69,
  kRoleDelete = 70,
  kRoleGrantPermission = 71,
  kRoleRevokePermission = 72,
};

// The buffer of a unary request starts with this many spare bytes, and the client's encoded message
// stands behind them. The command's header (server/apply/command.h) overwrites them, so that the
// client's own bytes become the log's payload without a further copy.
inline constexpr size_t kRequestHeadroom = 24;

}  // namespace conclave::wire
