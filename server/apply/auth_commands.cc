// Who may do what, and what committed requests of the Auth service do to the state.
#include <optional>
#include <utility>

#include "conclave/api/wire/auth.h"
#include "conclave/server/apply/access.h"
#include "conclave/server/apply/auth_image.h"
#include "conclave/server/apply/state_machine.h"

namespace conclave::apply {
namespace {

using auth::Refusal;
using wire::Method;

ApplyResult Refuse(const wire::Error* error) { return {error, Bytes()}; }
ReadResult RefuseRead(const wire::Error* error) { return {error, Bytes(), nullptr}; }
ReadResult Answer(Bytes response) { return {nullptr, std::move(response), nullptr}; }

// Methods below, CommandKinds from here on.
constexpr uint8_t kFirstCommandKind = 128;

std::vector<std::string_view> Views(const absl::btree_set<std::string>& names) {
  return {names.begin(), names.end()};
}

template <typename Map>
std::vector<std::string_view> Names(const Map& map) {
  std::vector<std::string_view> names;
  names.reserve(map.size());
  for (const auto& [name, unused] : map) names.push_back(name);
  return names;
}

}  // namespace

// ---- Checks -------------------------------------------------------------------------------------

Refusal StateMachine::CheckLeaseKeys(const auth::Identity& who, int64_t lease, bool write) const {
  Refusal refusal = auth_.CheckUser(who);
  if (refusal != Refusal::kNone || !lessor_.Exists(lease)) return refusal;
  lessor_.ForEachKey(lease, [&](std::string_view key) {
    refusal = write ? auth_.CheckWrite(who, key, {}) : auth_.CheckRead(who, key, {});
    return refusal == Refusal::kNone;
  });
  return refusal;
}

const wire::Error* StateMachine::CheckRoot(const auth::Identity& who) const {
  return ErrorOf(auth_.CheckRoot(who));
}

const wire::Error* StateMachine::CheckAccess(const auth::Identity& who,
                                             const Access& access) const {
  switch (access.kind) {
    case Access::Kind::kRead:
      return ErrorOf(auth_.CheckRead(who, access.key, access.range_end));
    case Access::Kind::kWrite:
      return ErrorOf(auth_.CheckWrite(who, access.key, access.range_end));
    case Access::Kind::kWriteLease:
      return ErrorOf(CheckLeaseKeys(who, access.lease, /*write=*/true));
    case Access::Kind::kReadLease:
      return ErrorOf(CheckLeaseKeys(who, access.lease, /*write=*/false));
    case Access::Kind::kReadAllLeases:
      if (auth_.CheckRoot(who) == Refusal::kNone) return nullptr;
      for (const lease::LeaseId lease : lessor_.Leases()) {
        const Refusal refusal = CheckLeaseKeys(who, lease, /*write=*/false);
        if (refusal != Refusal::kNone) return ErrorOf(refusal);
      }
      return ErrorOf(auth_.CheckUser(who));
  }
  return &wire::kErrPermissionDenied;
}

const wire::Error* StateMachine::CheckAccess(const auth::Identity& who, Method method,
                                             std::string_view request) const {
  if (!auth_.enabled()) return nullptr;
  switch (NeedOf(method)) {
    case Need::kNothing:
      return nullptr;
    case Need::kUser:
      return ErrorOf(auth_.CheckUser(who));
    case Need::kRoot:
      return ErrorOf(auth_.CheckRoot(who));
    case Need::kAlarm: {
      wire::AlarmRequest alarm;
      if (!wire::Parse(request, &alarm)) return &wire::kErrMalformed;
      const bool get = alarm.action == static_cast<int32_t>(wire::AlarmAction::kGet);
      return ErrorOf(get ? auth_.CheckUser(who) : auth_.CheckRoot(who));
    }
    case Need::kSelf:
    case Need::kOwnRole: {
      wire::AuthNameRequest about;
      if (!wire::Parse(request, &about)) return &wire::kErrMalformed;
      const bool own = NeedOf(method) == Need::kSelf ? about.name == who.user
                                                     : auth_.HasRole(who.user, about.name);
      return ErrorOf(own ? auth_.CheckUser(who) : auth_.CheckRoot(who));
    }
    case Need::kKeys: {
      // Somebody, even if the request touches nothing.
      if (const Refusal refusal = auth_.CheckUser(who); refusal != Refusal::kNone) {
        return ErrorOf(refusal);
      }
      const wire::Error* error = nullptr;
      const bool allowed = ForEachAccess(method, request, [&](const Access& access) {
        error = CheckAccess(who, access);
        return error == nullptr;
      });
      if (allowed) return nullptr;
      return error != nullptr ? error : &wire::kErrMalformed;
    }
  }
  return &wire::kErrPermissionDenied;
}

// ---- From the log -------------------------------------------------------------------------------

ApplyResult StateMachine::ApplyOnBehalf(const ApplyContext& context, CommandHeader header,
                                        std::string_view body) {
  OnBehalf command;
  if (header.Is(CommandKind::kOnBehalf)) {
    if (!DecodeOnBehalf(body, &command)) return Refuse(&wire::kErrMalformed);
    header.kind = static_cast<uint8_t>(command.method);
    body = command.request;
  }
  if (header.kind < kFirstCommandKind) {
    // Whoever is not named in the entry is nobody.
    if (const wire::Error* error =
            CheckAccess(command.who, static_cast<Method>(header.kind), body)) {
      return Refuse(error);
    }
  }
  if (!alarms_.empty()) {
    if (const wire::Error* error = Forbidden(header, body)) return Refuse(error);
  }
  return Execute(context, header, body);
}

ApplyResult StateMachine::ApplyAuth(const ApplyContext& context, Method method,
                                    std::string_view body) {
  const std::optional<Refusal> refusal = ChangeAuth(method, body);
  if (!refusal.has_value()) return Refuse(&wire::kErrMalformed);
  if (*refusal != Refusal::kNone) return Refuse(ErrorOf(*refusal));
  if (!context.want_response) return {};
  return {nullptr, wire::EncodeHeaderOnly(Header(context.raft_term))};
}

std::optional<Refusal> StateMachine::ChangeAuth(Method method, std::string_view body) {
  switch (method) {
    case Method::kAuthEnable:
      return auth_.Enable();
    case Method::kAuthDisable:
      auth_.Disable();
      tokens_.Clear();
      return Refusal::kNone;
    case Method::kUserAdd: {
      wire::AuthUserAddRequest request;
      if (!wire::Parse(body, &request)) return std::nullopt;
      return auth_.AddUser(request.name, request.hashed_password, request.no_password);
    }
    case Method::kUserChangePassword: {
      wire::AuthUserChangePasswordRequest request;
      if (!wire::Parse(body, &request)) return std::nullopt;
      const Refusal refusal = auth_.ChangePassword(request.name, request.hashed_password);
      if (refusal == Refusal::kNone) tokens_.ForgetUser(request.name);
      return refusal;
    }
    case Method::kUserGrantRole:
    case Method::kUserRevokeRole: {
      wire::AuthUserRoleRequest request;
      if (!wire::Parse(body, &request)) return std::nullopt;
      return method == Method::kUserGrantRole ? auth_.GrantRole(request.user, request.role)
                                              : auth_.RevokeRole(request.user, request.role);
    }
    case Method::kRoleGrantPermission: {
      wire::AuthRoleGrantPermissionRequest request;
      if (!wire::Parse(body, &request)) return std::nullopt;
      if (!request.has_permission) return Refusal::kPermissionNotGiven;
      const wire::AuthPermission& given = request.permission;
      if (given.type < 0 || given.type > 2) return Refusal::kPermissionNotGiven;
      return auth_.GrantPermission(
          request.name, {static_cast<auth::PermissionType>(given.type), std::string(given.key),
                         std::string(given.range_end)});
    }
    case Method::kRoleRevokePermission: {
      wire::AuthRoleRevokePermissionRequest request;
      if (!wire::Parse(body, &request)) return std::nullopt;
      return auth_.RevokePermission(request.role, request.key, request.range_end);
    }
    case Method::kUserDelete:
    case Method::kRoleAdd:
    case Method::kRoleDelete: {
      wire::AuthNameRequest request;
      if (!wire::Parse(body, &request)) return std::nullopt;
      if (method == Method::kRoleAdd) return auth_.AddRole(request.name);
      if (method == Method::kRoleDelete) return auth_.DeleteRole(request.name);
      const Refusal refusal = auth_.DeleteUser(request.name);
      if (refusal == Refusal::kNone) tokens_.ForgetUser(request.name);
      return refusal;
    }
    default:
      return std::nullopt;
  }
}

// The password was found right by the member that proposed this, as of an auth revision. If
// anything has changed since, it must look again.
ApplyResult StateMachine::ApplyAuthenticate(const ApplyContext& context, std::string_view body) {
  Login login;
  if (!DecodeLogin(body, &login)) return Refuse(&wire::kErrMalformed);
  if (!auth_.enabled()) return Refuse(&wire::kErrAuthNotEnabled);
  if (login.auth_revision != auth_.revision()) return Refuse(&wire::kErrAuthOldRevision);
  const auth::User* const user = auth_.FindUser(login.user);
  if (user == nullptr || user->no_password) return Refuse(&wire::kErrAuthFailed);
  if (login.token_digest.has_value() && !context.replayed) {
    tokens_.Assign(context.index, *login.token_digest, std::string(login.user), context.now);
  }
  if (!context.want_response) return {};
  return {nullptr, wire::EncodeHeaderOnly(Header(context.raft_term))};
}

// ---- Reads --------------------------------------------------------------------------------------

ReadResult StateMachine::ReadAuth(const ReadContext& context, Method method,
                                  std::string_view body) const {
  const wire::ResponseHeader header = Header(context.raft_term);
  wire::AuthNameRequest request;
  switch (method) {
    case Method::kAuthStatus:
      return Answer(wire::EncodeAuthStatus(header, auth_.enabled(), auth_.revision()));
    case Method::kUserList:
      return Answer(wire::EncodeAuthNames(header, Names(auth_.users())));
    case Method::kRoleList:
      return Answer(wire::EncodeAuthNames(header, Names(auth_.roles())));
    case Method::kUserGet: {
      if (!wire::Parse(body, &request)) return RefuseRead(&wire::kErrMalformed);
      const auth::User* const user = auth_.FindUser(request.name);
      if (user == nullptr) return RefuseRead(&wire::kErrUserNotFound);
      return Answer(wire::EncodeAuthNames(header, Views(user->roles)));
    }
    case Method::kRoleGet: {
      if (!wire::Parse(body, &request)) return RefuseRead(&wire::kErrMalformed);
      const auth::Role* const role = auth_.FindRole(request.name);
      if (role == nullptr) return RefuseRead(&wire::kErrRoleNotFound);
      std::vector<wire::AuthPermission> permissions;
      if (request.name == auth::kRoot) {
        permissions.push_back({static_cast<int32_t>(auth::PermissionType::kReadWrite), "",
                               std::string_view("\0", 1)});
      } else {
        for (const auth::Permission& permission : role->permissions) {
          permissions.push_back(
              {static_cast<int32_t>(permission.type), permission.key, permission.range_end});
        }
      }
      return Answer(wire::EncodeAuthRoleGet(header, permissions));
    }
    default:
      return RefuseRead(&wire::kErrUnimplemented);
  }
}

}  // namespace conclave::apply
